//go:build prove

package vector

func init() { kills = 200 }
