// Package s3proxy stands in front of an S3 server: it lets each key do what its policy says, keeps the record of who asked
// for what with the storage class of every object, and lets things go wrong on demand. Requests pass unchanged, so their
// signatures stay valid and the server behind checks them.
//
// What is faithful: names of actions, errors as S3 words them, append-only keys as IAM would enforce them. What is not:
// lifecycle rules are books that the proxy keeps, and an object that came in parts has the size of its last request.
package s3proxy

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// Config says what stands behind and who may come in.
type Config struct {
	Upstream  *url.URL
	Transport http.RoundTripper // nil: http.DefaultTransport
	Keys      []Key
	Lifecycle []Rule
	Now       func() time.Time // nil: time.Now
}

// A Proxy is an http.Handler in front of an S3 server.
type Proxy struct {
	config  Config
	keys    map[string]Key
	forward *httputil.ReverseProxy

	mu       sync.Mutex
	faults   []*injected
	requests []Request
	objects  map[string]Object // by bucket/name
}

// New returns a Proxy.
func New(c Config) *Proxy {
	if c.Now == nil {
		c.Now = time.Now
	}
	p := &Proxy{config: c, keys: map[string]Key{}, objects: map[string]Object{}}
	for _, k := range c.Keys {
		p.keys[k.ID] = k
	}
	p.forward = &httputil.ReverseProxy{
		Transport: c.Transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(c.Upstream)
			r.Out.Host = r.In.Host // it is signed
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			refuse(w, http.StatusBadGateway, "InternalError", "the server behind did not answer")
		},
		ModifyResponse: func(r *http.Response) error {
			r.Header.Set("Date", c.Now().UTC().Format(http.TimeFormat))
			return nil
		},
	}
	return p
}

// ServeHTTP answers one request: policy first, then faults, then the server behind.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := Request{Time: p.config.Now(), Bytes: length(r), Class: r.Header.Get("X-Amz-Storage-Class")}
	q.Bucket, q.Object = split(r.URL.Path)
	q.Action = action(r.Method, r.URL, r.Header)
	key, known := p.keys[keyID(r)]
	q.Role = key.Role
	seen := &watched{ResponseWriter: w}
	var deleted []string
	defer func() { // also when the handler panics to cut the connection
		q.Status = seen.status
		p.record(q, deleted)
	}()

	w.Header().Set("Date", q.Time.UTC().Format(http.TimeFormat))
	switch {
	case late(r, q.Time):
		refuse(seen, http.StatusForbidden, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
		return
	case !known:
		refuse(seen, http.StatusForbidden, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
		return
	case !key.Expires.IsZero() && p.config.Now().After(key.Expires):
		refuse(seen, http.StatusBadRequest, "ExpiredToken", "The provided token has expired.")
		return
	}
	deleted, err := p.judge(key, q, r)
	if err != nil {
		refuse(seen, http.StatusForbidden, "AccessDenied", "Access Denied: "+err.Error())
		return
	}
	if f := p.fault(q.Action, q.Role, q.Object); f != nil {
		q.Fault = f.Kind
		p.fail(seen, r, *f)
		return
	}
	p.forward.ServeHTTP(seen, r)
}

// late tells whether a request was signed by a clock that differs from the storage's by more than fifteen minutes, as S3 does
// (docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, RequestTimeTooSkewed).
func late(r *http.Request, now time.Time) bool {
	signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	return err == nil && now.Sub(signed).Abs() > 15*time.Minute
}

// deleteLimit is how long the body of a DeleteObjects may be, in bytes; S3 takes a thousand names of up to 1 KiB each.
const deleteLimit = 2 << 20

// judge tells whether a key may do what a request asks for. For a DeleteObjects it reads the names in the body, puts the
// body back, and returns the names.
func (p *Proxy) judge(key Key, q Request, r *http.Request) (deleted []string, err error) {
	if source := r.Header.Get("X-Amz-Copy-Source"); source != "" {
		name, err := url.PathUnescape(source)
		if _, from := split("/" + name); err != nil || !allows(key.Grants, GetObject, from) {
			return nil, fmt.Errorf("the key %q may not read the source of the copy", key.Role)
		}
	}
	if q.Action != DeleteMany {
		if !allows(key.Grants, q.Action, q.Object) {
			return nil, fmt.Errorf("the key %q may not %s here", key.Role, q.Action)
		}
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, deleteLimit))
	if err != nil {
		return nil, fmt.Errorf("the list of names did not arrive")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var list struct {
		Object []struct{ Key, VersionId string }
	}
	if err := xml.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("the list of names is not XML of at most %d bytes", deleteLimit)
	}
	for _, o := range list.Object {
		a := Delete
		if o.VersionId != "" {
			a = DeleteOld
		}
		if !allows(key.Grants, a, o.Key) {
			return nil, fmt.Errorf("the key %q may not %s %s", key.Role, a, o.Key)
		}
		deleted = append(deleted, o.Key)
	}
	return deleted, nil
}

// fail answers as the fault says.
func (p *Proxy) fail(w *watched, r *http.Request, f Fault) {
	switch f.Kind {
	case InternalError:
		refuse(w, http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
	case SlowDown:
		refuse(w, http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
	case Forbidden:
		refuse(w, http.StatusForbidden, "AccessDenied", "Access Denied")
	case Expired:
		refuse(w, http.StatusBadRequest, "ExpiredToken", "The provided token has expired.")
	case Hang:
		limit := f.Limit
		if limit == 0 {
			limit = HangLimit
		}
		io.Copy(io.Discard, r.Body) //nolint:errcheck // only a server that has read the request learns that its client has left
		wait(r.Context(), limit)    //nolint:errcheck // either way the connection ends
		panic(http.ErrAbortHandler)
	case Drip:
		w.speed, w.ctx = max(f.Speed, 1), r.Context()
		p.forward.ServeHTTP(w, r)
	case Cut:
		w.cut = true
		p.forward.ServeHTTP(w, r)
		panic(http.ErrAbortHandler) // where the answer was too short to be cut
	case Lost:
		p.forward.ServeHTTP(&dropped{header: http.Header{}}, r)
		panic(http.ErrAbortHandler)
	}
}

// wait returns after d, or when ctx ends: then it says so.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// length is how long a request's payload is. Streamed uploads frame it and tell its real length in a header.
func length(r *http.Request) int64 {
	if n, err := strconv.ParseInt(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64); err == nil {
		return n
	}
	return r.ContentLength
}

// refuse writes an error as S3 does.
func refuse(w http.ResponseWriter, status int, code, message string) {
	body, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}{Code: code, Message: message})
	if err != nil {
		body = nil
	}
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body) //nolint:errcheck // the client has left
}

// watched remembers the status of an answer, and slows it down or cuts it where a fault wants that.
type watched struct {
	http.ResponseWriter
	status int
	speed  int // bytes a second; 0: as fast as it goes
	ctx    context.Context
	cut    bool
}

func (w *watched) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *watched) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	switch {
	case w.cut:
		w.ResponseWriter.Write(b[:len(b)/2]) //nolint:errcheck // the connection ends here either way
		w.Flush()
		panic(http.ErrAbortHandler)
	case w.speed > 0:
		return w.drip(b)
	}
	return w.ResponseWriter.Write(b)
}

// drip writes in ten portions a second, or byte by byte where that is faster than the speed.
func (w *watched) drip(b []byte) (written int, err error) {
	portion := max(w.speed/10, 1)
	for len(b) > 0 {
		n, err := w.ResponseWriter.Write(b[:min(portion, len(b))])
		written += n
		if err != nil {
			return written, err
		}
		w.Flush()
		b = b[n:]
		if err := wait(w.ctx, time.Duration(n)*time.Second/time.Duration(w.speed)); err != nil {
			return written, err
		}
	}
	return written, nil
}

// Flush sends what is buffered.
func (w *watched) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// dropped is where an answer goes that never arrives.
type dropped struct{ header http.Header }

func (d *dropped) Header() http.Header         { return d.header }
func (d *dropped) Write(b []byte) (int, error) { return len(b), nil }
func (d *dropped) WriteHeader(int)             {}
