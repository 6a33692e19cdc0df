package script

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Fault is something that goes wrong. Without On and Chance it always does.
type Fault struct {
	Kind    FaultKind     `yaml:"kind"`
	On      []int         `yaml:"on"`      // numbers of requests, from 1
	Chance  float64       `yaml:"chance"`  // 0 to 1
	Wait    time.Duration `yaml:"wait"`    // what a 429 or an overload tells to wait, 0 means 30 s for a 429; or how late slow_first_token is
	Message string        `yaml:"message"` // instead of the provider's own words

	// Of verbatim: the response as it is sent.
	Status  int               `yaml:"status"` // 0 means 200
	Headers map[string]string `yaml:"headers"`
	Body    string            `yaml:"body"`
}

// A FaultKind names a fault.
type FaultKind string

// Refusals: an error status instead of an answer.
const (
	RateLimited      FaultKind = "429"
	RateNoHint       FaultKind = "429_no_retry_after"
	RateWrongHint    FaultKind = "429_wrong_retry_after" // Retry-After says 1 s, the body says Wait
	Spend            FaultKind = "spend"                 // money gone, as this provider says it
	BadRequest       FaultKind = "400"
	BadKey           FaultKind = "401"
	Forbidden        FaultKind = "403"
	NoModel          FaultKind = "404"
	TooLarge         FaultKind = "413"
	CapacityExceeded FaultKind = "498" // Groq's flex tier
	Internal         FaultKind = "500"
	BadGateway       FaultKind = "502"
	Busy             FaultKind = "503"
	GatewayTimeout   FaultKind = "504"
	Overloaded       FaultKind = "529"
)

// Breaks: the answer does not come to its end, or not as one.
const (
	ResetBeforeHeaders FaultKind = "reset_before_headers"
	StallBeforeHeaders FaultKind = "stall_before_headers"
	SlowFirstToken     FaultKind = "slow_first_token" // the headers at once, the answer after Wait
	ResetMidStream     FaultKind = "reset_mid_stream"
	CloseMidStream     FaultKind = "close_mid_stream" // as a reset, but the connection is closed in an orderly way
	StallMidStream     FaultKind = "stall_mid_stream"
	MalformedChunk     FaultKind = "malformed_chunk"
	ErrorMidStream     FaultKind = "error_mid_stream"
	Truncate           FaultKind = "truncate"           // a clean end of the stream before the finish
	ResetAfterFinish   FaultKind = "reset_after_finish" // the answer itself is whole
	HTML200            FaultKind = "html_200"
	Error200           FaultKind = "error_200"
	Verbatim           FaultKind = "verbatim" // Status, Headers and Body as they are: a refusal that was caught in the wild
)

// Disguises: a whole answer in an unusual shape. Several may apply at once.
const (
	NoDone         FaultKind = "no_done"  // no [DONE] or message_stop after the finish
	JSON200        FaultKind = "json_200" // one JSON answer where a stream was asked for
	SlowDrip       FaultKind = "slow_drip"
	Gzip           FaultKind = "gzip"
	SplitEveryByte FaultKind = "split_every_byte"
	CRLF           FaultKind = "crlf"
	HugeEvent      FaultKind = "huge_event" // more than 1 MiB of white space in one event
	Comments       FaultKind = "comments"   // keep-alive comments (SSE) or empty lines (NDJSON) between chunks
	BytesAfterDone FaultKind = "bytes_after_done"
)

var (
	refusals  = []FaultKind{RateLimited, RateNoHint, RateWrongHint, Spend, BadRequest, BadKey, Forbidden, NoModel, TooLarge, CapacityExceeded, Internal, BadGateway, Busy, GatewayTimeout, Overloaded}
	breaks    = []FaultKind{ResetBeforeHeaders, StallBeforeHeaders, SlowFirstToken, ResetMidStream, CloseMidStream, StallMidStream, MalformedChunk, ErrorMidStream, Truncate, ResetAfterFinish, HTML200, Error200, Verbatim}
	disguises = []FaultKind{NoDone, JSON200, SlowDrip, Gzip, SplitEveryByte, CRLF, HugeEvent, Comments, BytesAfterDone}
)

// FaultKinds are all there are.
func FaultKinds() []FaultKind { return slices.Concat(refusals, breaks, disguises) }

// Refuses says that k is an error status instead of an answer.
func (k FaultKind) Refuses() bool { return slices.Contains(refusals, k) }

// Status is the HTTP status that k is named after; 500 for kinds that are not named after one, 429 for all limits.
func (k FaultKind) Status() int {
	name, _, _ := strings.Cut(string(k), "_")
	if n, err := strconv.Atoi(name); err == nil {
		return n
	}
	return 500
}

// Disguises says that k leaves the answer whole.
func (k FaultKind) Disguises() bool { return slices.Contains(disguises, k) }

func (f *Fault) check() error {
	if !f.Kind.Refuses() && !f.Kind.Disguises() && !slices.Contains(breaks, f.Kind) {
		var known []string
		for _, k := range FaultKinds() {
			known = append(known, string(k))
		}
		return fmt.Errorf("kind: %q is not one of %s", f.Kind, strings.Join(known, ", "))
	}
	if f.Chance < 0 || f.Chance > 1 {
		return fmt.Errorf("chance: %v is not between 0 and 1", f.Chance)
	}
	if f.Wait < 0 {
		return fmt.Errorf("wait: %s is negative", f.Wait)
	}
	if f.Kind != Verbatim && (f.Status != 0 || f.Headers != nil || f.Body != "") {
		return fmt.Errorf("kind: %s has no status, headers or body; verbatim has", f.Kind)
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return fmt.Errorf("status: %d is not between 200 and 599", f.Status)
	}
	return nil
}

// Hits says whether f applies to the n-th request. The same seed, n and f give the same answer.
func (f Fault) Hits(seed uint64, n int) bool {
	if f.Chance > 0 {
		return rand.New(rand.NewPCG(seed, uint64(n))).Float64() < f.Chance
	}
	return len(f.On) == 0 || slices.Contains(f.On, n)
}

// FaultsOf returns what goes wrong with the n-th request (from 1) that rule r answers: at most one refusal or break (nil for
// none; r's own goes first), and any number of disguises.
func (s *Script) FaultsOf(n int, r Rule) (*Fault, map[FaultKind]bool) {
	var broken *Fault
	var shapes map[FaultKind]bool
	take := func(f Fault) {
		switch {
		case !f.Hits(s.Seed, n):
		case f.Kind.Disguises():
			if shapes == nil {
				shapes = map[FaultKind]bool{}
			}
			shapes[f.Kind] = true
		case broken == nil:
			if f.Wait == 0 && (f.Kind == RateLimited || f.Kind == RateWrongHint || f.Kind == RateNoHint) {
				f.Wait = 30 * time.Second
			}
			broken = &f
		}
	}
	if r.Fault != nil {
		take(*r.Fault)
	}
	for _, f := range s.Faults {
		take(f)
	}
	return broken, shapes
}
