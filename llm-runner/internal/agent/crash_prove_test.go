//go:build prove

package agent

func init() { everyPoint = true }
