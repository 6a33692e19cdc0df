// Package upstream is the HTTP client that every provider speaks through: one transport, the key in its header, silence
// bounded in time, error bodies bounded in size, transport failures turned into *llm.Error.
package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// MaxErrorBody is how many bytes of an error response are read. Providers' error bodies are a few hundred bytes.
const MaxErrorBody = 64 << 10

// A Client speaks to one upstream.
type Client struct {
	Name string // the provider's configured name, for errors
	// Base is the upstream's URL without a trailing slash; paths are appended to it.
	Base string
	// Header goes with every request: the key lives here and nowhere else.
	Header http.Header
	// Timeout is the longest silence that is borne, before the response's headers and between two reads of its body.
	// Zero means five minutes, which a local machine may need to load a model.
	Timeout time.Duration

	http *http.Client
}

// New returns a Client of the upstream at base, with an idle-connection pool of its own.
func New(name, base string, header http.Header, timeout time.Duration) *Client {
	if timeout <= 0 {
		timeout = 5 * time.Minute
	}
	return &Client{
		Name: name, Base: strings.TrimRight(base, "/"), Header: header, Timeout: timeout,
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:                 http.ProxyFromEnvironment,
				DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
				MaxIdleConns:          256,
				MaxIdleConnsPerHost:   256,
				IdleConnTimeout:       90 * time.Second,
				TLSHandshakeTimeout:   10 * time.Second,
				ForceAttemptHTTP2:     true,
				ExpectContinueTimeout: time.Second,
				WriteBufferSize:       16 << 10,
				ReadBufferSize:        16 << 10,
			},
			// A redirect could carry the key to another host.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// A Dialer makes connections, as net.Dialer.DialContext does.
type Dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// Over has c make its connections with dial from now on; nil changes nothing. It returns c, and is called before the first
// request.
func (c *Client) Over(dial Dialer) *Client {
	if dial != nil {
		c.http.Transport.(*http.Transport).DialContext = dial
	}
	return c
}

// CloseIdle closes connections that nobody uses.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Do is Send by POST, or by GET where body is nil.
func (c *Client) Do(ctx context.Context, path string, header http.Header, body []byte) (*http.Response, error) {
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	return c.Send(ctx, method, path, header, body)
}

// Ask is Do, and turns every response that is not a success into what refusal reads out of it, finished by Refused.
func (c *Client) Ask(ctx context.Context, path string, header http.Header, body []byte,
	refusal func(status int, h http.Header, body []byte, now time.Time) *llm.Error) (*http.Response, error) {
	resp, err := c.Do(ctx, path, header, body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, c.Refused(refusal(resp.StatusCode, resp.Header, ErrorBody(resp), time.Now()))
	}
	return resp, nil
}

// Send sends a request and returns the response, whatever its status; body nil means none. The response's body ends with
// an error when the upstream is silent for longer than Timeout or ctx ends. The caller closes it.
func (c *Client) Send(ctx context.Context, method, path string, header http.Header, body []byte) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	rd := io.Reader(nil)
	if body != nil {
		rd = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Base+path, rd)
	if err != nil {
		cancel(nil)
		return nil, &llm.Error{Kind: llm.BadRequest, Provider: c.Name, Message: fmt.Sprintf("address %q is not a URL", c.Base), Err: err}
	}
	for k, v := range header {
		req.Header[k] = v
	}
	for k, v := range c.Header {
		req.Header[k] = v
	}
	if body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	silence := time.AfterFunc(c.Timeout, func() { cancel(errSilent) })
	resp, err := c.http.Do(req)
	if err != nil {
		silence.Stop()
		e := c.failure(ctx, err)
		cancel(nil)
		return nil, e
	}
	silence.Stop() // until the body is read: a caller that takes its time is not the upstream's silence
	resp.Body = &watchedBody{body: resp.Body, status: resp.StatusCode, client: c, ctx: ctx, cancel: cancel, silence: silence}
	return resp, nil
}

var errSilent = errors.New("upstream silent for too long")

// failure turns a transport error into an *llm.Error that names neither URL nor key.
func (c *Client) failure(ctx context.Context, err error) *llm.Error {
	e := &llm.Error{Kind: llm.Unavailable, Provider: c.Name, Err: err}
	var dns *net.DNSError
	var op *net.OpError
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errSilent):
		e.Message = fmt.Sprintf("no answer for %s", c.Timeout)
	case cause != nil && errors.Is(cause, context.DeadlineExceeded):
		e.Message = "the caller's deadline passed"
	case cause != nil:
		e.Kind, e.Message = llm.Cancelled, "cancelled by the caller"
	case errors.As(err, &dns):
		e.Message = fmt.Sprintf("host %q cannot be resolved", dns.Name)
	case errors.As(err, &op):
		e.Message = fmt.Sprintf("%s %s: %v", op.Op, c.host(), op.Err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Message = "connection closed before the answer was complete"
	default:
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		e.Message = err.Error()
	}
	return e
}

func (c *Client) host() string {
	if u, err := url.Parse(c.Base); err == nil && u.Host != "" {
		return u.Host
	}
	return "upstream"
}

// ErrorBody reads at most MaxErrorBody bytes of resp's body and closes it.
func ErrorBody(resp *http.Response) []byte {
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, MaxErrorBody))
	return b
}

// A watchedBody gives up when the upstream is silent for too long, and says why reading ended.
type watchedBody struct {
	body    io.ReadCloser
	status  int
	client  *Client
	ctx     context.Context
	cancel  context.CancelCauseFunc
	silence *time.Timer
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.silence.Reset(b.client.Timeout)
	n, err := b.body.Read(p)
	b.silence.Stop() // a slow reader on our side is not the upstream's silence
	if err != nil && err != io.EOF {
		e := b.client.failure(b.ctx, err)
		if e.Kind == llm.Unavailable {
			e.Status = b.status // somebody had answered
		}
		err = e
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.silence.Stop()
	b.cancel(nil)
	return b.body.Close()
}
