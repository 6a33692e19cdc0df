package browse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/toolbox"
)

const (
	mostBytes     = 8 << 20 // of a page: the longest articles have some hundred kilobytes, PDFs a few megabytes
	mostRobots    = 500 << 10
	mostRedirects = 5
	window        = 24 << 10 // of a page that one call returns, in bytes
	remembered    = 32       // pages
	fresh         = 10 * time.Minute
	limit         = 35 * time.Second // of one page, from robots.txt to its text
)

// FetchConfig is what fetch_url may be told. The zero value works.
type FetchConfig struct {
	Allow []string      // hosts inside that may be fetched all the same, by name or address
	Read  Reader        // nil: Read, in this process
	Limit time.Duration // of one page or feed; 0 means 35 seconds
	// Keep puts a page into the library; nil: it is not kept.
	Keep func(ctx context.Context, p Page) error
	// Kept returns a page as it was kept, for when its site is down; nil: none is.
	Kept func(ctx context.Context, url string) (Page, bool)
	// Save writes a page into the vault and returns where; nil: it cannot.
	Save func(ctx context.Context, p Page) (path string, err error)
}

// A Fetcher fetches pages. It is safe for concurrent use.
type Fetcher struct {
	c      FetchConfig
	client *http.Client

	mu     sync.Mutex
	robots map[string]known // by scheme and host
	pages  []Page           // newest last
}

type known struct {
	rules  []rule
	closed bool // nothing may be fetched
	until  time.Time
}

// NewFetcher returns a Fetcher.
func NewFetcher(c FetchConfig) *Fetcher {
	if c.Read == nil {
		c.Read = Read
	}
	if c.Limit == 0 {
		c.Limit = limit
	}
	f := &Fetcher{c: c, robots: map[string]known{}}
	f.client = client(c.Allow, f.redirect)
	return f
}

// redirect follows a few redirects, each only where robots.txt of its own host allows.
func (f *Fetcher) redirect(r *http.Request, via []*http.Request) error {
	if len(via) > mostRedirects {
		return fmt.Errorf("it leads from address to address, more than %d times", mostRedirects)
	}
	u, err := address(r.URL.String())
	if err != nil {
		return err
	}
	if via[0].URL.Scheme == "https" && u.Scheme == "http" {
		return fmt.Errorf("it leads from https to the unencrypted %s", u.Redacted())
	}
	if first := via[0].URL.Hostname(); named(f.c.Allow, u.Hostname()) && !named(f.c.Allow, first) { // whoever is asked about first sees only that one
		return fmt.Errorf("it leads to %s, which is inside and only read when it is asked for by name", u.Host)
	}
	r.Header.Del("Referer")
	if via[0].URL.Path == "/robots.txt" { // it need not be allowed to be read
		return nil
	}
	return f.permitted(r.Context(), u)
}

// permitted asks a host's robots.txt. One that is missing allows everything, one that fails nothing (RFC 9309, 2.3.1).
func (f *Fetcher) permitted(ctx context.Context, u *url.URL) error {
	host := u.Scheme + "://" + u.Host
	f.mu.Lock()
	k, ok := f.robots[host]
	f.mu.Unlock()
	if !ok || time.Now().After(k.until) {
		var err error
		if k, err = f.askRobots(ctx, host); err != nil {
			return err
		}
		f.mu.Lock()
		if len(f.robots) > 1000 {
			clear(f.robots)
		}
		f.robots[host] = k
		f.mu.Unlock()
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	if u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	if k.closed {
		return fmt.Errorf("%s does not tell what programs may read (its robots.txt fails), so nothing is read from it now: %w", u.Host, errDown)
	}
	if !allowed(k.rules, path) {
		return fmt.Errorf("%s does not want programs to read %s (its robots.txt)", u.Host, u.Path)
	}
	return nil
}

func (f *Fetcher) askRobots(ctx context.Context, host string) (known, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := f.get(ctx, host+"/robots.txt")
	if err != nil {
		return known{}, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return known{closed: true, until: time.Now().Add(fresh)}, nil
	case resp.StatusCode >= 300:
		return known{until: time.Now().Add(24 * time.Hour)}, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostRobots))
	if err != nil {
		return known{}, fmt.Errorf("read robots.txt of %s: %w", host, err)
	}
	return known{rules: rules(string(body)), until: time.Now().Add(24 * time.Hour)}, nil
}

func (f *Fetcher) get(ctx context.Context, u string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "Mozilla/5.0 (compatible; "+agent+"/1.0)")
	req.Header.Set("Accept", "text/html, application/xhtml+xml, application/pdf;q=0.9, text/*;q=0.9, application/json;q=0.8, */*;q=0.1")
	resp, err := f.client.Do(req)
	if err != nil {
		var wrapped *url.Error // says the method and the address once more
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, fmt.Errorf("fetch %s: %w", u, err)
	}
	return resp, nil
}

// errDown says that a site cannot answer now.
var errDown = errors.New("it is down")

// down says that err is the fault of a site that may be there again later.
func down(err error) bool {
	var network net.Error
	return !errors.Is(err, ErrInside) && (errors.Is(err, errDown) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF))
}

// bounded is a context for one page.
func (f *Fetcher) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, f.c.Limit, fmt.Errorf("it took longer than %s", f.c.Limit))
}

// late adds to an error that the time was up, where it was.
func late(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && errors.Is(err, context.DeadlineExceeded) && cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// Fetch gets a page and puts it into the library.
func (f *Fetcher) Fetch(ctx context.Context, raw string) (Page, error) {
	u, err := address(raw)
	if err != nil {
		return Page{}, err
	}
	if p, ok := f.remember(u.String()); ok {
		return p, nil
	}
	p, err := f.fetch(ctx, u)
	if err != nil {
		if f.c.Kept != nil && down(err) && ctx.Err() == nil {
			if p, ok := f.c.Kept(ctx, u.String()); ok {
				p.Stale = err.Error()
				return p, nil
			}
		}
		return Page{}, err
	}
	p.Fetched = time.Now().UTC().Truncate(time.Second)
	if f.c.Keep != nil {
		if err := f.c.Keep(ctx, p); err != nil {
			return p, fmt.Errorf("keep %s in the library: %w", u, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := p
	if asked.URL != u.String() {
		asked.URL = u.String() + "\n" + p.URL
	}
	f.pages = append(f.pages, asked)
	f.pages = f.pages[max(0, len(f.pages)-remembered):]
	return p, nil
}

// fetch gets and reads a page, within its time.
func (f *Fetcher) fetch(ctx context.Context, u *url.URL) (Page, error) {
	ctx, cancel := f.bounded(ctx)
	defer cancel()
	if err := f.permitted(ctx, u); err != nil {
		return Page{}, late(ctx, err)
	}
	final, kind, body, err := f.body(ctx, u)
	if err != nil {
		return Page{}, late(ctx, err)
	}
	p, err := f.c.Read(ctx, final, kind, body)
	if err != nil {
		return Page{}, fmt.Errorf("read %s: %w", u, late(ctx, err))
	}
	return p, nil
}

// body gets what is at an address, all of it: where it was found in the end, and its content type.
func (f *Fetcher) body(ctx context.Context, u *url.URL) (final *url.URL, kind string, body []byte, err error) {
	resp, err := f.get(ctx, u.String())
	if err != nil {
		return nil, "", nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("fetch %s: the server answered %d %s", u, resp.StatusCode, http.StatusText(resp.StatusCode)) // in our words, not in its
		if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
			err = fmt.Errorf("%w: %w", err, errDown)
		}
		return nil, "", nil, err
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, mostBytes+1))
	if err != nil {
		return nil, "", nil, fmt.Errorf("fetch %s: %w", u, err)
	}
	if len(body) > mostBytes {
		return nil, "", nil, fmt.Errorf("fetch %s: it has more than %d MiB", u, mostBytes>>20)
	}
	return resp.Request.URL, resp.Header.Get("Content-Type"), body, nil
}

// remember returns a page that was fetched a moment ago, for those who read on.
func (f *Fetcher) remember(u string) (Page, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range slices.Backward(f.pages) {
		asked, final, two := strings.Cut(p.URL, "\n")
		if (asked == u || two && final == u) && time.Since(p.Fetched) < fresh {
			if two {
				p.URL = final
			}
			return p, true
		}
	}
	return Page{}, false
}

// fetchArguments are what a model says to fetch_url.
type fetchArguments struct {
	URL  string `json:"url" jsonschema:"the address of the page, with http:// or https://"`
	From int    `json:"from,omitempty" jsonschema:"where to go on reading a long page: the number that the call before told; 0 is the beginning"`
	Save bool   `json:"save,omitempty" jsonschema:"write the page into the notes as well; the person is asked first"`
}

// Tool returns fetch_url.
func (f *Fetcher) Tool() toolbox.Tool {
	t := toolbox.Tool{
		Name: "fetch_url", Outside: true, Policy: toolbox.Allow, Timeout: 40 * time.Second,
		Description: "Reads a page of the web (HTML, PDF or text) as Markdown, with title, author and date.",
		Doubt:       doubt,
	}
	return toolbox.Make(t, func(ctx context.Context, _ toolbox.Call, a fetchArguments) (toolbox.Result, error) {
		p, err := f.Fetch(ctx, a.URL)
		if err != nil {
			return toolbox.Result{}, err
		}
		head := p.Head()
		if a.Save {
			if f.c.Save == nil {
				return toolbox.Result{}, errors.New("there is no vault to save it in: set vault.path in the configuration")
			}
			path, err := f.c.Save(ctx, p)
			if err != nil {
				return toolbox.Result{}, err
			}
			head += "Saved as: " + path + "\n"
		}
		text, err := piece(p.Text, a.From)
		return toolbox.Result{Text: head + "\n" + text}, err
	})
}

// Head is what is known of a page, a line each.
func (p Page) Head() string {
	var b strings.Builder
	if p.Stale != "" {
		fmt.Fprintf(&b, "This is a copy of %s: the page cannot be read now (%.300s).\n", p.Fetched.Format("2006-01-02 15:04 MST"), p.Stale)
	}
	line := func(name, value string) {
		if value = strings.Join(strings.Fields(value), " "); value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	line("Title", p.Title)
	line("Author", p.Author)
	line("Site", p.Site)
	if !p.Published.IsZero() {
		line("Published", p.Published.Format(time.DateOnly))
	}
	line("Address", p.URL)
	if p.Canonical != p.URL {
		line("Canonical", p.Canonical)
	}
	line("Fetched", p.Fetched.Format(time.RFC3339))
	line("Not read", strings.Join(p.Remarks, "; "))
	return b.String()
}

// piece is a window of a long text, which ends at a line's end where there is one near.
func piece(text string, from int) (string, error) {
	if from < 0 || from > len(text) {
		return "", fmt.Errorf("from: the page has %d bytes", len(text))
	}
	for from > 0 && from < len(text) && text[from]&0xc0 == 0x80 {
		from--
	}
	rest := text[from:]
	if len(rest) <= window {
		return rest, nil
	}
	end := window
	if at := strings.LastIndexByte(rest[:end], '\n'); at > window/2 {
		end = at + 1
	}
	for end > 0 && rest[end]&0xc0 == 0x80 {
		end--
	}
	return fmt.Sprintf("%s\n[the page goes on: call again with from=%d of %d]", rest[:end], from+end, len(text)), nil
}

// doubt has a person asked about addresses that may be somebody else's idea. What a page says must not choose what is fetched: the
// address could carry away what the model knows. An address that the person wrote, or that a search found, is as it was before.
func doubt(s toolbox.Scope, arguments json.RawMessage) string {
	var a fetchArguments
	if err := toolbox.Arguments(arguments, &a); err != nil {
		return ""
	}
	if a.Save {
		return "it writes a note"
	}
	if !s.Tainted {
		return ""
	}
	wanted := same(a.URL)
	for _, link := range s.Links {
		if same(link) == wanted {
			return ""
		}
	}
	for _, words := range s.Words {
		for _, field := range strings.FieldsFunc(words, func(r rune) bool { return strings.ContainsRune(" \t\r\n<>\"'`()[]{}|", r) }) {
			if same(strings.TrimRight(field, ".,;:!?")) == wanted || same(field) == wanted {
				return ""
			}
		}
	}
	return "the address is neither yours nor one that a search found: what was read may have suggested it"
}
