//go:build prove

package library

func init() { kills = 200 }
