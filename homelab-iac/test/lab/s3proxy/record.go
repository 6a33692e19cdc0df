package s3proxy

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// A Request is one line of the record. No header of it is kept, so no secret is.
type Request struct {
	Time   time.Time `json:"time"`
	Role   string    `json:"role"` // "" when nobody's key was on it
	Action Action    `json:"action"`
	Bucket string    `json:"bucket"`
	Object string    `json:"object,omitempty"`
	Class  string    `json:"class,omitempty"` // the storage class that a PutObject asked for; "" is none
	Bytes  int64     `json:"bytes"`           // of the body that came in; -1 when it was not told
	Status int       `json:"status"`          // 0 when the connection was cut
	Fault  Kind      `json:"fault,omitempty"`
}

// An Object is what the proxy knows about one that was written through it.
type Object struct {
	Bucket string `json:"bucket"`
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	Asked  string `json:"asked"` // the storage class that its writer asked for
	Class  string `json:"class"` // the one that it lies in once the bucket's rules were applied
}

// A Rule is a lifecycle rule: objects below Prefix and larger than LargerThan bytes go to Class on their first day
// (a transition after 0 days). The server behind has no lifecycle of its own, so the proxy keeps these books for it.
type Rule struct {
	Bucket     string `json:"bucket"`
	Prefix     string `json:"prefix"`
	LargerThan int64  `json:"larger_than"`
	Class      string `json:"class"`
}

// Standard is the storage class of what was written without one.
const Standard = "STANDARD"

// class returns where an object lies after the rules: the first that fits decides, and only what is in Standard moves.
func class(rules []Rule, o Object) string {
	if o.Asked != Standard {
		return o.Asked
	}
	for _, r := range rules {
		if r.Bucket == o.Bucket && strings.HasPrefix(o.Name, r.Prefix) && o.Bytes > r.LargerThan {
			return r.Class
		}
	}
	return Standard
}

// kept is how many requests the record holds; older ones are dropped.
const kept = 100_000

// record keeps one request and, where it changed an object, the object.
func (p *Proxy) record(q Request, deleted []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.requests) >= kept {
		p.requests = slices.Delete(p.requests, 0, kept/10)
	}
	p.requests = append(p.requests, q)
	if q.Status < 200 || q.Status > 299 {
		return
	}
	switch q.Action {
	case PutObject:
		asked := q.Class
		if asked == "" {
			asked = Standard
		}
		p.objects[q.Bucket+"/"+q.Object] = Object{Bucket: q.Bucket, Name: q.Object, Bytes: q.Bytes, Asked: asked}
	case Delete:
		delete(p.objects, q.Bucket+"/"+q.Object)
	case DeleteMany:
		for _, name := range deleted {
			delete(p.objects, q.Bucket+"/"+name)
		}
	}
}

// Requests returns the record, oldest first.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// Objects returns what was written through the proxy and not deleted since, by name.
func (p *Proxy) Objects() []Object {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := make([]Object, 0, len(p.objects))
	for _, name := range slices.Sorted(maps.Keys(p.objects)) {
		o := p.objects[name]
		o.Class = class(p.config.Lifecycle, o)
		found = append(found, o)
	}
	return found
}
