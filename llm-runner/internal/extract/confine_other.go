//go:build !unix

package extract

import "runtime/debug"

// confine bounds this process as far as this system can.
func confine() { debug.SetMaxStack(64 << 20) }
