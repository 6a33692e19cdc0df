package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/route"
)

// maxHeld is how much of an answer that is not streamed is held back until it is known to be whole. Larger ones (none has
// been seen; a chat answer has kilobytes, embeddings of a hundred texts two megabytes) pass through as they come.
const maxHeld = 8 << 20

func (c *call) tryChat(ctx context.Context, a *route.Attempt) error {
	c.out.decideFor(a)
	if f, ok := forwarder(a); ok && c.tongue == openAI {
		ask := c.head.stream && !c.head.usage && !tellsUsage(a.Provider)
		resp, err := c.forward(ctx, a, f, ask)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if c.head.stream {
			return c.passStream(a, resp, ask)
		}
		return c.passWhole(a, resp)
	}
	c.dialect = llm.None
	return c.translate(ctx, a)
}

func forwarder(a *route.Attempt) (llm.Forwarder, bool) {
	f, ok := a.Provider.(llm.Forwarder)
	return f, ok && f.Dialect() == llm.OpenAI
}

// tellsUsage says that a provider is known to tell the usage of streams without being asked.
func tellsUsage(p llm.Provider) bool {
	t, ok := p.(interface{ TellsUsage() bool })
	return ok && t.TellsUsage()
}

func (c *call) forward(ctx context.Context, a *route.Attempt, f llm.Forwarder, askUsage bool) (*http.Response, error) {
	c.dialect = llm.OpenAI
	c.watch = watch{}
	resp, err := f.Forward(ctx, c.path, requestHeader(c.r.Header), c.head.rewrite(c.body, a.Target.Model, askUsage))
	if err != nil {
		var e *llm.Error
		if errors.As(err, &e) {
			ofModel(e.Limits, a.Target.Model)
		}
		return nil, err
	}
	limits := f.Limits(resp.Header)
	ofModel(limits, a.Target.Model)
	a.Learn(limits)
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		resp.Body.Close()
		return nil, broken(a, resp, fmt.Errorf("answered in the encoding %q, which nobody asked for", e))
	}
	return resp, nil
}

// ofModel fills in what headers do not tell: in this dialect limits are of the model that was asked.
func ofModel(limits []llm.Limit, model string) {
	for i := range limits {
		if limits[i].Model == "" {
			limits[i].Model = model
		}
	}
}

// broken is the error of an answer that had begun at the upstream but did not become whole.
func broken(a *route.Attempt, resp *http.Response, err error) error {
	var e *llm.Error
	if errors.As(err, &e) {
		if e.Kind == llm.Cancelled {
			return e
		}
		err = errors.New(e.Message)
	}
	return &llm.Error{Kind: llm.Unavailable, Provider: a.Target.Provider, Model: a.Target.Model, Status: resp.StatusCode,
		Message: err.Error(), Header: resp.Header}
}

// refused is the error that an upstream wrote under a status that says all is well.
func refused(a *route.Attempt, resp *http.Response, body []byte) error {
	e := openai.InBand(body, time.Now())
	e.Provider, e.Model, e.Status, e.Header = a.Target.Provider, a.Target.Model, resp.StatusCode, resp.Header
	return e
}

// passWhole passes an answer in one piece. Until it is whole the client sees nothing of it and another target may still
// answer.
func (c *call) passWhole(a *route.Attempt, resp *http.Response) error {
	size := resp.ContentLength
	if size < 0 || size > maxHeld {
		size = 4 << 10
	}
	body, err := readAll(resp.Body, int(size)+1, maxHeld)
	if errors.Is(err, errTooLarge) {
		return c.passLarge(a, resp, body)
	}
	if err != nil {
		return broken(a, resp, err)
	}
	if err := c.watch.object(body); err != nil {
		kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		return broken(a, resp, fmt.Errorf("answered with %s that is %w", or(kind, "something"), err))
	}
	switch {
	case c.watch.failed:
		return refused(a, resp, body)
	case c.path == chatPath && c.watch.choices == 0:
		return broken(a, resp, errors.New("answered without choices"))
	}
	a.First()
	a.Used(c.watch.usage)
	c.out.hurry()
	c.out.begin(resp.Header, int64(len(body)))
	if err := c.out.write(body); err != nil {
		return err
	}
	a.Finished()
	return nil
}

func (c *call) passLarge(a *route.Attempt, resp *http.Response, held []byte) error {
	a.First()
	c.out.begin(resp.Header, resp.ContentLength)
	c.out.cut = true // what is missing at the end is the sign of a failure
	for {
		c.out.hurry()
		if err := c.out.write(held); err != nil {
			return err
		}
		n, err := resp.Body.Read(held[:cap(held)])
		held = held[:n]
		if n > 0 {
			continue
		}
		if err == io.EOF {
			a.Finished()
			return nil
		}
		if err != nil {
			return broken(a, resp, err)
		}
	}
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
