//go:build prove

package memory

func init() { everyPoint = true }
