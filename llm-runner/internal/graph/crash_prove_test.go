//go:build prove

package graph

func init() { everywhere = true }
