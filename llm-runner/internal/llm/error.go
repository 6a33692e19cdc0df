package llm

import (
	"errors"
	"fmt"
	"net/http"
	"time"
	_ "time/tzdata" // NextPacificDay, on machines without time zones too
)

// A Kind says what went wrong with a request, as far as the one who sent it must care.
type Kind string

const (
	Quota       Kind = "quota"       // our rate limit is used up: the same request succeeds after Until
	Overload    Kind = "overload"    // the provider is overloaded (529, 503, 498): not our quota; try later
	Spend       Kind = "spend"       // money or a spending cap is gone: never retried, a person must act
	Auth        Kind = "auth"        // the key is missing, wrong or not allowed: never retried
	BadRequest  Kind = "bad_request" // the request can never succeed as it is
	NotFound    Kind = "not_found"   // the provider does not have that model
	Unavailable Kind = "unavailable" // nobody answered: refused, reset, timed out, broken answer
	Cancelled   Kind = "cancelled"   // the caller went away
)

// Permanent says that sending the same request again cannot help until a person has changed something.
func (k Kind) Permanent() bool {
	return k == Spend || k == Auth || k == BadRequest || k == NotFound
}

// An Error is a provider's refusal or failure. Its Message is fit for people and never holds a secret.
type Error struct {
	Kind     Kind
	Provider string // the configured name, where known
	Model    string
	Message  string
	Status   int       // of the upstream's HTTP response; 0 none
	Until    time.Time // UTC, when to come back; zero: not told
	Limits   []Limit   // what the refusal told of the provider's limits
	Started  bool      // something of the answer had already been yielded
	TooLong  bool      // of BadRequest: more than the model's context holds; a model with a larger one may take it
	Header   http.Header
	Body     []byte // the upstream's error body, bounded, where it may be passed on
	Err      error
}

func (e *Error) Error() string {
	s := e.Message
	if s == "" && e.Err != nil {
		s = e.Err.Error()
	}
	if e.Provider != "" {
		s = e.Provider + ": " + s
	}
	if e.Status != 0 {
		s = fmt.Sprintf("%s (HTTP %d)", s, e.Status)
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// A BusyError means that nobody started: the same request may be sent again at Until. It is not a failure; whoever
// can wait, waits.
type BusyError struct {
	Provider string
	Model    string
	Reason   string    // one sentence for people: what is waited for
	Kind     Kind      // Quota, Overload or Unavailable
	Until    time.Time // UTC; zero: nobody knows (a machine that is down)
	// Dimension is the limit that is used up, as in Limit; "" where it is none, or not known which.
	Dimension string
	// Broken says that somebody else could have answered but for a fault, which may pass before Until.
	Broken bool
	Err    error
}

func (e *BusyError) Error() string {
	if e.Until.IsZero() {
		return e.Reason
	}
	return e.Reason + "; ask again at " + e.Until.UTC().Format(time.RFC3339)
}

func (e *BusyError) Unwrap() error { return e.Err }

// A Limit is what a provider told of one of its rate limits, at the moment it told it.
type Limit struct {
	Dimension string    `json:"dimension"` // see the constants below
	Max       Count     `json:"limit"`
	Remaining Count     `json:"remaining"`
	Reset     time.Time `json:"reset"`               // UTC, when there is room again; zero: not told
	Exhausted bool      `json:"exhausted,omitempty"` // the provider refused because of this one
	// Model is set where the limit is of one model; "" where it is shared by the whole account.
	Model string `json:"model,omitempty"`

	Refill Refill   `json:"-"` // how room comes back
	Counts Counting `json:"-"` // what of a request's tokens it counts
}

// A Refill says how the room of a limit comes back. The provider's package knows it; the zero value is Window.
type Refill uint8

const (
	Window     Refill = iota // all of it at Reset
	Rolling                  // each use one window after it was made
	Continuous               // little by little, at an even pace; Reset is when all of it is back
	PacificDay               // all of it at midnight in California
)

// Counting says how a limit on tokens counts: the zero value is all input, and the output that was really made.
type Counting uint8

const (
	SkipsCached Counting = 1 << iota // input that was read from the provider's cache does not count
	TakesMax                         // the tokens that an answer may have are taken when the request is sent
	Repeats                          // shows whichever other limit is tightest: nothing is counted by it
)

var california = func() *time.Location {
	loc, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		panic(err) // time/tzdata is linked in
	}
	return loc
}()

// NextPacificDay returns the end of the day in California that t is in, in UTC. Such a day has 23, 24 or 25 hours.
func NextPacificDay(t time.Time) time.Time {
	y, m, d := t.In(california).Date()
	return time.Date(y, m, d+1, 0, 0, 0, 0, california).UTC()
}

// Dimensions of a Limit.
const (
	RequestsPerMinute     = "requests/minute"
	RequestsPerDay        = "requests/day"
	TokensPerMinute       = "tokens/minute"
	TokensPerDay          = "tokens/day"
	InputTokensPerMinute  = "input_tokens/minute"
	OutputTokensPerMinute = "output_tokens/minute"
	Overall               = "overall" // the provider did not say which
)

// KindOf returns the kind of the first *Error or *BusyError in err's chain; Unavailable for anything else.
func KindOf(err error) Kind {
	var e *Error
	var b *BusyError
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.As(err, &b):
		return b.Kind
	}
	return Unavailable
}
