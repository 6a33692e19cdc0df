package browse

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/toolbox"
)

// SearchConfig says where to search. SearXNG is asked first.
type SearchConfig struct {
	SearXNG string // URL; "" there is none
	Tavily  string // key; "" there is none
	// TavilyURL is where Tavily answers; "" is its own address.
	TavilyURL string
	// Told is told when an engine begins to fail, and with nil when it answers again; nil: nobody is.
	Told func(engine string, err error)
}

// The engines.
const (
	nameSearXNG = "SearXNG"
	nameTavily  = "Tavily"
)

// A Standing is how an engine was when it was asked last.
type Standing struct {
	Engine string
	Err    error     // nil: it answered
	Since  time.Time // zero: it was not asked yet
}

// A Hit is one result of a search.
type Hit struct {
	Title, URL, Snippet string
	Published           time.Time // zero: not told
	From                string    // searxng or tavily
}

// A Searcher searches the web. It is safe for concurrent use.
type Searcher struct {
	c      SearchConfig
	client *http.Client

	mu  sync.Mutex
	all []Standing
}

// NewSearcher returns a Searcher. It asks only the addresses of its configuration.
func NewSearcher(c SearchConfig) *Searcher {
	c.TavilyURL = cmp.Or(c.TavilyURL, "https://api.tavily.com")
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s := &Searcher{c: c, client: &http.Client{CheckRedirect: stay, Timeout: 15 * time.Second}}
	if c.SearXNG != "" {
		s.all = append(s.all, Standing{Engine: nameSearXNG})
	}
	if c.Tavily != "" {
		s.all = append(s.all, Standing{Engine: nameTavily})
	}
	return s
}

// Standing says how the engines were when they were asked last, from memory.
func (s *Searcher) Standing() []Standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// Probe asks SearXNG, which costs nothing; it is nil where there is none.
func (s *Searcher) Probe(ctx context.Context) error {
	if s.c.SearXNG == "" {
		return nil
	}
	_, err := s.searxng(ctx, "llm-runner", "", "", 1)
	return err
}

// heard notes how an engine answered. That whoever asked has left says nothing of it.
func (s *Searcher) heard(ctx context.Context, engine string, err error) {
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	i := slices.IndexFunc(s.all, func(x Standing) bool { return x.Engine == engine })
	was := s.all[i]
	if was.Since.IsZero() || (was.Err == nil) != (err == nil) {
		s.all[i].Since = time.Now()
	}
	s.all[i].Err = err
	s.mu.Unlock()
	if s.c.Told != nil && (was.Err == nil) != (err == nil) {
		s.c.Told(engine, err)
	}
}

// Missing says what there is to do before anything can be searched; "" nothing.
func (s *Searcher) Missing() string {
	if s.c.SearXNG == "" && s.c.Tavily == "" {
		return "there is nothing to search with: set tools.search.searxng to the address of a SearXNG, or tools.search.tavily to a key"
	}
	return ""
}

// Forbidden says that a SearXNG answers, but not in JSON.
const Forbidden = "it refuses to answer in JSON (403): add these two lines to its settings.yml and restart it\nsearch:\n  formats: [html, json]"

// Search returns at most n hits, each page once. What SearXNG lacks comes from Tavily. The error says what each of them said, and
// comes only where there is no hit at all and something failed; that one failed where the other did not is told by Told.
func (s *Searcher) Search(ctx context.Context, query, language, since string, n int) ([]Hit, error) {
	if missing := s.Missing(); missing != "" {
		return nil, errors.New(missing)
	}
	l := list{most: n, seen: map[string]bool{}}
	var faults []error
	if s.c.SearXNG != "" {
		for page := 1; page <= 2 && len(l.hits) < n; page++ {
			hits, err := s.searxng(ctx, query, language, since, page)
			s.heard(ctx, nameSearXNG, err)
			if err != nil {
				faults = append(faults, fmt.Errorf("SearXNG at %s: %w", s.c.SearXNG, err))
				break
			}
			if l.add(hits) == 0 {
				break
			}
		}
	}
	if s.c.Tavily != "" && len(l.hits) < n {
		hits, err := s.tavily(ctx, query, since, n)
		s.heard(ctx, nameTavily, err)
		if err != nil {
			faults = append(faults, fmt.Errorf("Tavily: %w", err)) //nolint:staticcheck // a name
		}
		l.add(hits)
	}
	if len(l.hits) == 0 && len(faults) > 0 {
		return nil, fmt.Errorf("search the web: %w", errors.Join(faults...))
	}
	return l.hits, nil
}

// A list has every page once.
type list struct {
	most int
	hits []Hit
	seen map[string]bool
}

func (l *list) add(all []Hit) (added int) {
	for _, h := range all {
		key := page(h.URL)
		if key == "" || l.seen[key] || len(l.hits) == l.most {
			continue
		}
		l.seen[key] = true
		l.hits = append(l.hits, h)
		added++
	}
	return added
}

// page is what two addresses of one page have in common; "" is none that can be fetched.
func page(raw string) string {
	u, err := address(raw)
	if err != nil {
		return ""
	}
	q := u.Query()
	for k := range q {
		if l := strings.ToLower(k); strings.HasPrefix(l, "utm_") || l == "fbclid" || l == "gclid" || l == "ref" || l == "mc_cid" || l == "mc_eid" {
			q.Del(k)
		}
	}
	host := strings.TrimPrefix(strings.ToLower(u.Host), "www.")
	path := strings.TrimSuffix(strings.TrimSuffix(u.EscapedPath(), "/index.html"), "/")
	return host + path + "?" + q.Encode()
}

// send makes a request and decodes its JSON answer.
func (s *Searcher) send(req *http.Request, into any) error {
	resp, err := s.client.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return &statusError{resp.StatusCode, resp.Status}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("it answered with something that is not JSON (%s): is that its address?", cmp.Or(resp.Header.Get("Content-Type"), "of no type"))
	}
	return nil
}

type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return "it answered " + e.text }

// searxng asks SearXNG's JSON API (docs.searxng.org/dev/search_api.html).
func (s *Searcher) searxng(ctx context.Context, query, language, since string, page int) ([]Hit, error) {
	u, err := url.Parse(strings.TrimSuffix(s.c.SearXNG, "/") + "/search")
	if err != nil {
		return nil, err
	}
	q := url.Values{"q": {query}, "format": {"json"}, "pageno": {strconv.Itoa(page)}, "safesearch": {"0"}}
	if language != "" {
		q.Set("language", language)
	}
	if since != "" {
		q.Set("time_range", since)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	var in struct {
		Results []struct {
			Title, URL, Content string
			PublishedDate       string
		}
		Unresponsive [][]any `json:"unresponsive_engines"`
	}
	if err := s.send(req, &in); err != nil {
		var status *statusError
		if errors.As(err, &status) {
			switch status.code {
			case http.StatusForbidden:
				return nil, errors.New(Forbidden)
			case http.StatusTooManyRequests:
				return nil, errors.New("its limiter turned us away (429): set limiter: false in its settings.yml, or pass this machine in its limiter.toml")
			}
		}
		return nil, err
	}
	var hits []Hit
	for _, r := range in.Results {
		hits = append(hits, Hit{Title: line(r.Title), URL: r.URL, Snippet: line(r.Content), Published: moment(r.PublishedDate), From: "searxng"})
	}
	if len(hits) == 0 && len(in.Unresponsive) > 0 && page == 1 {
		var said []string
		for _, e := range in.Unresponsive {
			said = append(said, strings.TrimSpace(fmt.Sprintln(e...)))
		}
		return nil, fmt.Errorf("none of its engines answered: %s", strings.Join(said, "; "))
	}
	return hits, nil
}

// tavily asks Tavily (docs.tavily.com/documentation/api-reference/endpoint/search).
func (s *Searcher) tavily(ctx context.Context, query, since string, n int) ([]Hit, error) {
	ask := map[string]any{"query": query, "max_results": min(n, 20)}
	if since != "" {
		ask["time_range"] = since
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(s.c.TavilyURL, "/")+"/search", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.c.Tavily)
	var in struct {
		Results []struct {
			Title, URL, Content string
			PublishedDate       string `json:"published_date"`
		}
	}
	if err := s.send(req, &in); err != nil {
		var status *statusError
		if errors.As(err, &status) {
			switch status.code {
			case http.StatusUnauthorized, http.StatusForbidden:
				return nil, errors.New("it refused the key: check tools.search.tavily")
			case 432, 433: // its own codes for a used-up plan and a spending limit
				return nil, errors.New("its plan is used up")
			}
		}
		return nil, err
	}
	var hits []Hit
	for _, r := range in.Results {
		hits = append(hits, Hit{Title: line(r.Title), URL: r.URL, Snippet: line(r.Content), Published: moment(r.PublishedDate), From: "tavily"})
	}
	return hits, nil
}

// line is a text in one line, of bounded length.
func line(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 400 {
		return string(r[:400]) + "\u2026"
	}
	return s
}

// moment reads the forms of dates that both send; the zero time is none.
func moment(s string) time.Time {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", time.DateOnly, time.RFC1123, time.RFC1123Z} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// searchArguments are what a model says to web_search.
type searchArguments struct {
	Query    string `json:"query" jsonschema:"what to search for, as one would type it"`
	Results  int    `json:"results,omitempty" jsonschema:"how many results, 1 to 20; 8 if left out"`
	Language string `json:"language,omitempty" jsonschema:"a language code such as en or de; any if left out"`
	Since    string `json:"since,omitempty" jsonschema:"only pages of the last day, month or year"`
}

// Tool returns web_search.
func (s *Searcher) Tool() toolbox.Tool {
	t := toolbox.Tool{Name: "web_search", Outside: true, Policy: toolbox.Allow, Timeout: 45 * time.Second, Off: s.Missing,
		Description: "Searches the web. Returns titles, addresses, dates and snippets; read a page with fetch_url before you rely on it."}
	return toolbox.Make(t, func(ctx context.Context, _ toolbox.Call, a searchArguments) (toolbox.Result, error) {
		if strings.TrimSpace(a.Query) == "" {
			return toolbox.Result{}, errors.New("query: it is empty")
		}
		switch a.Since {
		case "", "day", "month", "year":
		default:
			return toolbox.Result{}, fmt.Errorf("since: %q is not one of day, month, year", a.Since)
		}
		n := cmp.Or(a.Results, 8)
		if n < 1 || n > 20 {
			return toolbox.Result{}, fmt.Errorf("results: %d is not between 1 and 20", n)
		}
		hits, err := s.Search(ctx, a.Query, a.Language, a.Since, n)
		if err != nil {
			return toolbox.Result{}, err
		}
		return Shown(hits), nil
	})
}

// Shown are hits as a model sees them.
func Shown(hits []Hit) toolbox.Result {
	if len(hits) == 0 {
		return toolbox.Result{Text: "Nothing was found."}
	}
	var r toolbox.Result
	var b strings.Builder
	for i, h := range hits {
		fmt.Fprintf(&b, "%d. %s\n   %s\n", i+1, cmp.Or(h.Title, h.URL), h.URL)
		if !h.Published.IsZero() {
			fmt.Fprintf(&b, "   %s\n", h.Published.Format(time.DateOnly))
		}
		if h.Snippet != "" {
			fmt.Fprintf(&b, "   %s\n", h.Snippet)
		}
		r.Links = append(r.Links, h.URL)
	}
	r.Text = b.String()
	return r
}
