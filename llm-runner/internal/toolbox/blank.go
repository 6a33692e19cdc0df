package toolbox

import "context"

// Blank removes words from the log and from the steps that are kept: somebody wants them forgotten.
func (b *Box) Blank(ctx context.Context, words ...string) error {
	err := b.db.Tx(ctx, func(tx *transaction) error {
		if err := b.db.Blank(ctx, tx, "tool_calls", []string{"arguments", "preview", "result"}, words...); err != nil {
			return err
		}
		return b.db.Blank(ctx, tx, "tool_steps", []string{"message"}, words...)
	})
	b.wake()
	return err
}

// Forget deletes what is kept so that the answers of a conversation can go on, which is gone. The log of its calls stays.
func (b *Box) Forget(ctx context.Context, chat int64) error {
	return b.db.Tx(ctx, func(tx *transaction) error { return forgetSteps(ctx, tx, chat) })
}
