//go:build !linux

package engine

import "time"

// steady is the time since the program began. It stands still while the machine sleeps, so that time counts as waited for only where it is
// more than mostForward.
func steady() time.Duration { return time.Since(begun) }

var begun = time.Now()
