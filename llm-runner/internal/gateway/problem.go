package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A problem is an error as clients of OpenAI's API expect it. How the kinds of errors are told:
//
//	kind         status  type                   code                  a client's library
//	bad_request  400     invalid_request_error  (upstream's)          gives up
//	not_found    404     invalid_request_error  model_not_found       gives up
//	quota        429     rate_limit_exceeded    rate_limit_exceeded   waits for Retry-After and asks again
//	overload     503     overloaded             overloaded            waits and asks again
//	unavailable  503     unavailable            unavailable           waits and asks again: nobody started
//	             502     unavailable            upstream_broken       asks again: an answer had begun, but never became whole
//	auth         502     upstream_error         upstream_auth         it is this gateway's key, not the client's: so never 401
//	spend        402     insufficient_quota     upstream_spend        gives up: a person must pay (OpenAI says 429, which
//	                                                                  libraries would ask again)
//	cancelled    503     cancelled              cancelled             nobody reads it, unless this gateway is stopping
type problem struct {
	status  int
	Message string     `json:"message"`
	Type    string     `json:"type"`
	Param   *string    `json:"param"`
	Code    string     `json:"code"`
	RetryAt *time.Time `json:"retry_at,omitempty"` // UTC

	retryAfter int         // seconds; 0: asking again does not help
	header     http.Header // the upstream's; nil none
	body       []byte      // the upstream's own error body; nil: ours
	tongue     *tongue     // of the client; nil: OpenAI's
}

// unknownWait is the Retry-After in seconds where nobody knows when somebody is there again.
const unknownWait = 5

func (p *problem) json() []byte {
	if p.body != nil {
		return p.body
	}
	b, _ := json.Marshal(map[string]*problem{"error": p}) // strings and a time always have a JSON form
	return b
}

func badRequest(message string) *problem {
	return &problem{status: http.StatusBadRequest, Message: message, Type: "invalid_request_error", Code: "invalid_request"}
}

// explain turns what the router returned into a problem. dialect is what the upstream speaks: its own words are passed on
// only where the client understands them.
func explain(err error, dialect llm.Dialect, now time.Time) *problem {
	var busy *llm.BusyError
	if errors.As(err, &busy) {
		return explainBusy(busy, now)
	}
	var e *llm.Error
	if !errors.As(err, &e) {
		return &problem{status: http.StatusInternalServerError, Message: err.Error(), Type: "api_error", Code: "internal_error"}
	}
	p := &problem{Message: e.Error(), header: e.Header}
	switch e.Kind {
	case llm.BadRequest:
		p.status, p.Type, p.Code = http.StatusBadRequest, "invalid_request_error", "invalid_request"
	case llm.NotFound:
		p.status, p.Type, p.Code = http.StatusNotFound, "invalid_request_error", "model_not_found"
	case llm.Auth:
		p.status, p.Type, p.Code = http.StatusBadGateway, "upstream_error", "upstream_auth"
		return p // the upstream's own words would send the client looking for a fault in its own key
	case llm.Spend:
		p.status, p.Type, p.Code = http.StatusPaymentRequired, "insufficient_quota", "upstream_spend"
		return p
	case llm.Quota:
		p.status, p.Type, p.Code = http.StatusTooManyRequests, "rate_limit_exceeded", "rate_limit_exceeded"
		p.wait(e.Until, now)
		return p
	case llm.Overload:
		p.status, p.Type, p.Code = http.StatusServiceUnavailable, "overloaded", "overloaded"
		p.wait(e.Until, now)
		return p
	case llm.Cancelled:
		p.status, p.Type, p.Code = http.StatusServiceUnavailable, "cancelled", "cancelled"
		return p
	default:
		p.status, p.Type, p.Code = http.StatusBadGateway, "unavailable", "upstream_broken"
		return p
	}
	if dialect == llm.OpenAI && e.Status >= 400 && json.Valid(e.Body) && len(e.Body) > 0 && e.Body[0] == '{' {
		p.status, p.body = e.Status, e.Body
	}
	return p
}

func explainBusy(busy *llm.BusyError, now time.Time) *problem {
	p := &problem{status: http.StatusServiceUnavailable, Message: busy.Error(), Type: "unavailable", Code: "unavailable"}
	var e *llm.Error
	if errors.As(busy.Err, &e) {
		p.header = e.Header
	}
	switch busy.Kind {
	case llm.Quota:
		p.status, p.Type, p.Code = http.StatusTooManyRequests, "rate_limit_exceeded", "rate_limit_exceeded"
	case llm.Overload:
		p.Type, p.Code = "overloaded", "overloaded"
	case llm.Unavailable:
		if e != nil && e.Status != 0 {
			p.status, p.Code = http.StatusBadGateway, "upstream_broken"
		}
	}
	p.wait(busy.Until, now)
	return p
}

// wait says when to come back: whole seconds, rounded up, at least one.
func (p *problem) wait(until, now time.Time) {
	if until.IsZero() {
		p.retryAfter = unknownWait
		return
	}
	until = until.UTC()
	p.RetryAt = &until
	p.retryAfter = max(1, int((until.Sub(now)+time.Second-1)/time.Second))
}

// write sends the problem as the whole response.
func (p *problem) write(w http.ResponseWriter) {
	body := p.json()
	if p.tongue != nil {
		body = p.tongue.refuse(p)
		if p.tongue.overloaded != 0 && p.Code == "overloaded" {
			p.status = p.tongue.overloaded
		}
	}
	h := w.Header()
	passHeader(h, p.header)
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Del("Retry-After")
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(body) // a client that has gone needs no answer
}
