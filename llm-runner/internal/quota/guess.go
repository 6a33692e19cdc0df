package quota

import (
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// guess has a limit of which nobody told the shape be one that comes back in one piece, where a refusal says that there is room again before
// anything of what was used here can come back by itself. Where that was wrong, because others use the limit too or because it
// fills, the next refusal comes early in the window, and it counts as rolling from there on.
func (b *bucket) guess(t, until int64, wait time.Duration) {
	if b.refill != llm.Rolling || !b.known || b.most == 0 || b.reset == rolls || b.per < int64(time.Hour) { // a minute costs little
		return
	}
	if b.reset > 0 && b.used < float64(b.most)/2 {
		b.reset = rolls
		return
	}
	if int64(wait) > b.per/whole && (len(b.uses) == 0 || b.uses[0].Back > until+b.per/whole) {
		b.reset = until
	}
}

// rolls, as the reset of a rolling limit, says that it is no window, as a refusal has shown.
const rolls = -1

// whole is the part of a window by which room must come back too early to be taken for a new window, and which it must be away: what fills
// comes back at once, bit by bit.
const whole = 48

// scale adds what a rolling window is short of to what was counted, in proportion: it is so little that it was counted too low, as words are
// where tokens can only be estimated.
func (b *bucket) scale(more int64) {
	all, so, given := int64(b.used), int64(0), int64(0)
	for i := range b.uses {
		so += b.uses[i].N
		n := int64(float64(more) * min(float64(so)/float64(max(all, 1)), 1))
		b.uses[i].N, given = b.uses[i].N+n-given, n
	}
	b.uses[len(b.uses)-1].N += more - given
	b.used += float64(more)
}
