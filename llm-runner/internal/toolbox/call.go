package toolbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"home.arpa/lab/llm-runner/internal/trace"
)

// A Wish is a call that somebody wants made.
type Wish struct {
	Scope
	Step, Place int    // within Scope.Run
	Tool        string //
	Arguments   string // JSON, as the model wrote it
	// Refused says, if it is not "", why the call is not made, whatever the policy says: it is written down all the same.
	Refused string
}

// Submit writes a wish down and decides what the policy decides: the call is then approved, waiting or denied. A wish of a run
// that was submitted before, by an earlier process too, is that call as it stands; one that was cut is approved again, and one for which nobody
// had a word in time is refused.
func (b *Box) Submit(ctx context.Context, w Wish) (Call, error) {
	if w.Run != "" {
		c, err := callAt(ctx, b.db.Read(), w.Run, w.Step, w.Place)
		if err == nil {
			return b.takeUp(ctx, c)
		}
		if !errors.Is(err, ErrNotFound) {
			return Call{}, err
		}
	}
	c := Call{Run: w.Run, Step: w.Step, Place: w.Place, Source: w.Source, Chat: w.Chat, Tool: w.Tool, Asked: time.Now()}
	if err := b.weigh(ctx, &c, w); err != nil {
		return Call{}, err
	}
	err := b.db.Tx(ctx, func(tx *transaction) (err error) {
		if c.ID, err = insertCall(ctx, tx, c, b.db.Worker()); err != nil {
			return err
		}
		return b.asked(ctx, tx, c)
	})
	b.wake()
	return c, err
}

// takeUp is a call of a run that was submitted before.
func (b *Box) takeUp(ctx context.Context, c Call) (Call, error) {
	if c.State == Running { // whoever takes up a run has it alone, so nobody runs this
		c.State = Cut
		if c.Effects {
			c.State = Unverified
		}
	}
	switch c.State {
	case Unverified:
		c.IsError, c.Result = true, unverified
	case Cut:
		c.State = Approved
	case Withdrawn:
		if c.Why == impatient { // to ask again would go on for ever
			c.State, c.IsError, c.Result = Denied, true, "The person was asked and said nothing for a week. Go on without it, and say so."
			break
		}
		c.State, c.Asked, c.Ended = Waiting, time.Now(), time.Time{} // it is wanted again
	default:
		return c, nil
	}
	err := b.db.Tx(ctx, func(tx *transaction) error {
		if err := updateCall(ctx, tx, c, ""); err != nil {
			return err
		}
		return b.asked(ctx, tx, c)
	})
	b.wake()
	return c, err
}

// asked tells that a call waits for a person, where it does.
func (b *Box) asked(ctx context.Context, tx *transaction, c Call) error {
	if c.State != Waiting || b.config.Asked == nil {
		return nil
	}
	return b.config.Asked(ctx, tx, c)
}

// unverified is what a model is told of a call of which nobody knows what it has done.
const unverified = "The program ended while this ran, so nobody knows what it has done: effect unverified. Do not repeat it. " +
	"Look first whether it has happened, and tell the person."

// weigh decides about a wish.
func (b *Box) weigh(ctx context.Context, c *Call, w Wish) error {
	refuse := func(state State, format string, args ...any) {
		c.State, c.Why, c.IsError = state, fmt.Sprintf(format, args...), true
		c.Result, c.Decided, c.Ended = c.Why, c.Asked, c.Asked
	}
	c.Arguments, c.Policy = json.RawMessage("{}"), Deny
	if w.Refused != "" {
		if arguments, err := tidy(w.Arguments); err == nil {
			c.Arguments = arguments
		}
		refuse(Denied, "%s", w.Refused)
		return nil
	}
	t, ok := b.tool(w.Tool)
	if !ok {
		refuse(Denied, "there is no tool %q", w.Tool)
		return nil
	}
	c.Effects = t.Effects
	chosen, err := policies(ctx, b.db.Read(), w.Chat)
	if err != nil {
		return err
	}
	e := entry(t, chosen)
	c.Policy = e.Policy
	arguments, err := tidy(w.Arguments)
	switch {
	case err != nil:
		refuse(Done, "%v", err)
		return nil
	case e.Policy == Deny:
		refuse(Denied, "%s is not allowed here", t.Name)
		return nil
	case e.Missing != "":
		refuse(Denied, "%s cannot be used now: %s", t.Name, e.Missing)
		if t.Server != "" { // what is wrong with it, it may have said itself
			c.Result = wrap(t.Name, bound(c.Result, mostFault))
		}
		return nil
	}
	c.Arguments = arguments
	var preview Preview
	if t.Preview != nil {
		if preview, err = t.Preview(ctx, arguments); err != nil { // it would fail in the same way: nobody need be asked
			refuse(Done, "%v", err)
			return nil
		}
		c.Preview = bound(Visible(preview.Text), mostPreview)
	}
	c.State = Approved
	if e.Policy == Ask {
		c.State, c.Why = Waiting, "you are asked about every call of "+t.Name
	} else if t.Doubt != nil {
		if why := t.Doubt(w.Scope, arguments); why != "" {
			c.State, c.Why = Waiting, why
		}
	}
	if c.State == Waiting {
		c.Seal = preview.Seal // holds what is done to what the person saw
		if n := max(len(Visible(preview.Text)), len(arguments)); n > mostPreview {
			refuse(Done, "what a person would have to look at has %d bytes, more than %d: do it in smaller parts", n, mostPreview)
		}
	}
	return nil
}

const (
	mostPreview = 256 << 10 // of what a person looks at before they decide, in bytes: nothing runs that they could not see
	mostFault   = 4 << 10   // of what a tool has to complain about
)

// Decide answers a call that waits. It returns ErrDecided where that is no longer so.
func (b *Box) Decide(ctx context.Context, id int64, approve bool) (Call, error) {
	var c Call
	err := b.db.Tx(ctx, func(tx *transaction) (err error) {
		if c, err = lockedCall(ctx, b.db, tx, id); err != nil {
			return err
		}
		if c.State != Waiting {
			return ErrDecided
		}
		c.State, c.Decided = Approved, time.Now()
		if !approve {
			c.State, c.IsError, c.Ended = Denied, true, c.Decided
			c.Result = "The person was asked and said no. Do not try it again; go on without it, or ask what they want instead."
		}
		return errors.Join(updateCall(ctx, tx, c, ""), b.db.Tell(ctx, tx, topic, fmt.Sprint(id)))
	})
	if err != nil {
		return c, fmt.Errorf("decide call %d: %w", id, err)
	}
	b.wake()
	if b.config.Decided != nil {
		b.config.Decided(c)
	}
	return c, nil
}

// Withdraw has the calls of a run wait no longer.
func (b *Box) Withdraw(ctx context.Context, run string) error {
	err := b.db.Tx(ctx, func(tx *transaction) error { return withdraw(ctx, tx, run) })
	b.wake()
	return err
}

// Execute runs a call that is approved and returns it as it ended; what the tool has to complain about is in Result and IsError.
// An error means that the log could not be written, and then nothing was run; or that ctx ended, and then the log says what is
// known.
func (b *Box) Execute(ctx context.Context, c Call) (Call, error) {
	t, ok := b.tool(c.Tool)
	if !ok {
		t = Tool{Name: c.Tool, Run: func(context.Context, Call) (Result, error) {
			return Result{}, fmt.Errorf("there is no tool %q any more", c.Tool)
		}}
	}
	return b.execute(ctx, t, c)
}

func (b *Box) execute(ctx context.Context, t Tool, c Call) (Call, error) {
	if c.State != Approved {
		return c, nil
	}
	ctx, span := b.config.Traces.Begin(ctx, trace.Tool, c.Tool)
	defer func() { span.Done(fault(c)) }()
	span.Set(trace.ToolName, c.Tool)
	span.Set(trace.ToolCall, strconv.FormatInt(c.ID, 10))
	span.Set(trace.Policy, string(c.Policy))
	c.State, c.Started = Running, time.Now()
	if err := b.db.Tx(ctx, func(tx *transaction) error { return claim(ctx, b.db, tx, c) }); err != nil {
		return c, err
	}
	b.wake()
	r, err := b.run(ctx, t, c)
	c.State, c.Ended = Done, time.Now()
	if err != nil {
		c.IsError, c.Why, r.Text = true, err.Error(), err.Error()
		if ctx.Err() != nil { // a person, or the end of the program, stopped it
			c.State, c.Why, r.Text = Cut, "it was stopped before it had ended", ""
			if c.Effects {
				c.State, r.Text = Unverified, unverified
			}
		}
	}
	c.Links, c.Result = r.Links, bound(r.Text, b.config.MaxResult)
	if err != nil {
		c.Why, c.Result = bound(c.Why, mostFault), bound(r.Text, mostFault)
	}
	if t.Outside && c.State == Done { // what went wrong may be told in their words too
		c.Result = wrap(c.Tool, c.Result)
	}
	lasting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := b.db.Tx(lasting, func(tx *transaction) error { return updateCall(lasting, tx, c, "") }); err != nil {
		return c, fmt.Errorf("write what became of call %d: %w", c.ID, err)
	}
	b.wake()
	return c, ctx.Err()
}

// Do runs f as a call of a tool that this program makes of its own: in the log, and only where the tool's policy lets it run without being asked
// about; what the tool itself would do, f does. The error is f's, or says why it was not run.
func (b *Box) Do(ctx context.Context, s Scope, tool string, arguments any, f func(ctx context.Context) (Result, error)) error {
	raw, err := json.Marshal(arguments)
	if err != nil {
		return fmt.Errorf("call %s: %w", tool, err)
	}
	w := Wish{Scope: s, Tool: tool, Arguments: string(raw)}
	all, err := b.Entries(ctx, s.Chat)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Name == tool && e.Policy != Allow {
			w.Refused = fmt.Sprintf("%s may not be used without asking; allow it on the Tools page", tool)
		}
	}
	c, err := b.Submit(ctx, w)
	if err != nil {
		return err
	}
	if c.State != Approved {
		if c.State == Waiting { // its policy has changed this moment
			err = b.db.Tx(ctx, func(tx *transaction) error { return withdrawOne(ctx, tx, c.ID) })
		}
		return errors.Join(errors.New(c.Why), err)
	}
	t, _ := b.tool(tool)
	var failed error
	t.Timeout, t.Run = max(t.Timeout, time.Minute), func(ctx context.Context, _ Call) (Result, error) {
		r, err := f(ctx)
		failed = err
		return r, err
	}
	if _, err = b.execute(ctx, t, c); err != nil {
		return err
	}
	return failed
}

// errTool is what a span says of a call that failed: the tool's own words may repeat what it was called with.
var errTool = errors.New("the tool failed")

func fault(c Call) error {
	if c.IsError {
		return errTool
	}
	return nil
}

// run calls the tool, within its time. One that panics fails its own call only.
func (b *Box) run(ctx context.Context, t Tool, c Call) (r Result, err error) {
	timeout := t.Timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			b.log.Error("tool panicked", "tool", t.Name, "call", c.ID, "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			err = fmt.Errorf("internal fault in %s", t.Name)
		}
	}()
	r, err = t.Run(limited, c)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%s took longer than %s and was stopped: %w", t.Name, timeout, err)
	}
	return r, err
}

// Call submits a wish, waits for a person where one is asked, and runs it: for callers that wait themselves (MCP). An error is
// ctx's, or that the log cannot be written.
func (b *Box) Call(ctx context.Context, w Wish) (Call, error) {
	c, err := b.Submit(ctx, w)
	if err != nil {
		return c, err
	}
	if c.State == Waiting {
		if c, err = b.await(ctx, c.ID); err != nil {
			return c, err
		}
	}
	return b.Execute(ctx, c)
}

// ErrWaited says that nobody decided in time.
var ErrWaited = errors.New("nobody decided in time")

// CallWithin is Call for callers that wait for a person only so long: then the call is withdrawn, and the error is ErrWaited.
func (b *Box) CallWithin(ctx context.Context, w Wish, patience time.Duration) (Call, error) {
	c, err := b.Submit(ctx, w)
	if err != nil {
		return c, err
	}
	if c.State == Waiting {
		waiting, cancel := context.WithTimeoutCause(ctx, patience, ErrWaited)
		c, err = b.await(waiting, c.ID)
		cancel()
		if err != nil {
			lasting, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer done()
			if gone := b.db.Tx(lasting, func(tx *transaction) error { return withdrawOne(lasting, tx, c.ID) }); gone != nil {
				return c, errors.Join(err, gone)
			}
			b.wake()
			return c, err
		}
	}
	return b.Execute(ctx, c)
}

// lookEvery is how often a call is looked at that waits, beside being told.
const lookEvery = 2 * time.Second

func (b *Box) await(ctx context.Context, id int64) (Call, error) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		changed := b.watch()
		c, err := oneCall(ctx, b.db.Read(), id)
		if err != nil || c.State != Waiting {
			return c, err
		}
		select {
		case <-changed:
		case <-look.C:
		case <-ctx.Done():
			return c, context.Cause(ctx)
		}
	}
}

func (b *Box) watch() <-chan struct{} {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.changed
}

// Changed returns a channel that is closed at the next change of any call.
func (b *Box) Changed() <-chan struct{} { return b.watch() }

func (b *Box) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
}

// One returns a call.
func (b *Box) One(ctx context.Context, id int64) (Call, error) { return oneCall(ctx, b.db.Read(), id) }

// Waits lists the calls that wait for a person, oldest first.
func (b *Box) Waits(ctx context.Context) ([]Call, error) { return waiting(ctx, b.db.Read()) }

// OfRun lists the calls of a run in their order.
func (b *Box) OfRun(ctx context.Context, run string) ([]Call, error) {
	if run == "" {
		return nil, nil
	}
	return ofRun(ctx, b.db.Read(), run)
}

// Log lists the newest calls, at most limit, older than the one called before (0: the newest of all), of one tool or ("") all.
func (b *Box) Log(ctx context.Context, tool string, before int64, limit int) ([]Call, error) {
	return listCalls(ctx, b.db.Read(), tool, before, limit)
}

const (
	keep     = 90 * 24 * time.Hour // how long calls and steps are kept, as jobs are
	patience = 7 * 24 * time.Hour  // how long a call waits for a person
)

// impatient is why a call waits no more that waited for patience.
const impatient = "nobody decided for a week"

// Run forgets what is old, once an hour, until ctx ends.
func (b *Box) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if b.db.Trouble() == nil {
			now := time.Now()
			if err := b.db.Tx(ctx, func(tx *transaction) error { return forget(ctx, tx, now.Add(-keep), now.Add(-patience)) }); err != nil && ctx.Err() == nil {
				b.log.Warn("forget old calls of tools", "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
