package jobs

import "fmt"

// A State is where a job stands. docs/states.md draws the life of a job; a test compares it with transitions.
type State string

const (
	Queued    State = "queued"    // waits for a worker
	Running   State = "running"   // a worker has it
	Held      State = "held"      // nobody can answer yet; it goes on by itself
	Done      State = "done"      // the answer is kept
	Failed    State = "failed"    // no answer, and trying again by itself would not help
	Cancelled State = "cancelled" // a person did not want it any more
)

// States in the order in which a job passes them.
var States = []State{Queued, Running, Held, Done, Failed, Cancelled}

// Ended says that nothing more happens to the job by itself.
func (s State) Ended() bool { return s == Done || s == Failed || s == Cancelled }

// Waiting says that the time now counts against the job's deadline.
func (s State) Waiting() bool { return s == Queued || s == Held }

// An edge is a change of state that may happen. From "" a job begins.
type edge struct{ from, to State }

// transitions is every change of state that may happen, with its cause.
var transitions = map[edge]string{
	{"", Queued}:         "it is submitted",
	{Queued, Running}:    "a worker takes it",
	{Queued, Held}:       "one that came before it and is held goes first",
	{Queued, Failed}:     "it waited longer than its deadline",
	{Queued, Cancelled}:  "a person cancels it",
	{Running, Done}:      "the answer is complete",
	{Running, Failed}:    "it is refused for good, or its attempts are used up",
	{Running, Held}:      "nobody can answer yet, or a fault may pass",
	{Running, Queued}:    "the program ended meanwhile",
	{Running, Cancelled}: "a person cancels it",
	{Held, Running}:      "its time has come",
	{Held, Queued}:       "a person releases it, or what it waits for is back",
	{Held, Failed}:       "it waited longer than its deadline",
	{Held, Cancelled}:    "a person cancels it",
	{Failed, Queued}:     "a person retries it",
	{Cancelled, Queued}:  "a person retries it",
}

// A StateError says that what was asked for does not fit the job's state.
type StateError struct {
	State State
	Wish  string // release, retry, cancel
}

func (e *StateError) Error() string {
	switch e.Wish {
	case "release":
		return fmt.Sprintf("the job is %s: only a held job can be released", e.State)
	case "retry":
		return fmt.Sprintf("the job is %s: only a failed or cancelled job can be tried again", e.State)
	}
	return fmt.Sprintf("the job is %s already", e.State)
}
