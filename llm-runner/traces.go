package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/trace"
	"home.arpa/lab/llm-runner/internal/web"
)

// openTraces makes who tells a receiver what happens; nil where none is named.
func (a *app) openTraces() (*trace.Tracer, error) {
	c := a.config.Traces.settings()
	c.Hide, c.Version, c.Log = a.config.secrets(), version, a.log
	c.Fault = a.untraced
	return trace.Open(c)
}

// receiver says how the receiver of traces is; nothing where none is named.
func (a *app) receiver() []web.Dependency {
	s, ok := a.traces.Stats()
	if !ok {
		return nil
	}
	d := web.Dependency{Name: "traces", State: route.Up, Says: fmt.Sprintf("The receiver has taken %d spans.", s.Sent)}
	if s.Fault != nil {
		d.State, d.Since, d.Says = route.Down, s.Since, s.Fault.Error()
		d.Cure = "Look at the receiver, and at traces.endpoint and traces.headers. Everything else goes on; spans wait while there is room."
	}
	return []web.Dependency{d}
}

// settings are the configuration in the package's own form.
func (t TracesConfig) settings() trace.Config {
	headers := map[string]string{}
	for name, value := range t.Headers {
		headers[name] = string(value)
	}
	return trace.Config{Endpoint: t.Endpoint, Headers: headers, Content: t.Content, Sample: t.Sample}
}

// traces checks who is told what happens. A header that is missing leaves the rest of the house working.
func (v *validator) traces() {
	t := &v.c.Traces
	for _, name := range slices.Sorted(maps.Keys(t.Headers)) {
		value, key := t.Headers[name], "traces.headers."+name
		if strings.ContainsAny(name, " :\t\r\n") || name == "" {
			v.fault(key, "%q is not the name of a header: write for example Authorization", name)
		}
		if why, literal := resolve(&value); literal {
			v.fault(key, "%s", why)
		} else if why != "" {
			v.warn(key, why+"; until then the receiver may refuse what it is told")
		}
		if t.Headers[name] = value; value == "" {
			delete(t.Headers, name)
		}
	}
	v.each("traces.", t.settings().Validate())
}

// errors are the parts of a joined error.
func (v *validator) errors(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // the joined one itself, not one inside
		return many.Unwrap()
	}
	return nil
}
