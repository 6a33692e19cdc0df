package browse

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFeeds(t *testing.T) {
	at := time.Date(2026, 11, 28, 7, 30, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		body, fault string
		want        []Entry
	}{
		"RSS 2.0": {body: `<?xml version="1.0"?><rss version="2.0" xmlns:atom="http://www.w3.org/2005/Atom"><channel><title>All</title><link>https://x.example</link>
			<atom:link href="https://x.example/feed" rel="self"/><item><title>Frost &amp; <![CDATA[<b>ice</b>]]></title><link>/frost?a=1&amp;b=2</link><pubDate>Sat, 28 Nov 2026 08:30:00 +0100</pubDate></item>
			<item><title>No day&nbsp;said</title></item></channel></rss>`, want: []Entry{{"Frost & ice", "https://news.example/frost?a=1&b=2", at}, {Title: "No day said"}}},
		"RSS 1.0": {body: `<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"><channel><title>All</title></channel>
			<item><title>One</title><link>https://y.example/1</link><dc:date>2026-11-28T07:30:00Z</dc:date></item></rdf:RDF>`, want: []Entry{{"One", "https://y.example/1", at}}},
		"Atom": {body: `<feed xmlns="http://www.w3.org/2005/Atom"><title>All</title><entry><title type="html">A &lt;i&gt;new&lt;/i&gt; release</title>
			<link rel="enclosure" href="https://z.example/file"/><link href="https://z.example/1"/><updated>2026-11-28T08:30:00+01:00</updated></entry></feed>`, want: []Entry{{"A new release", "https://z.example/1", at}}},
		"in Latin-1": {body: "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><rss><channel><item><title>K\xe4lte</title><link>javascript:alert(1)</link></item></channel></rss>", want: []Entry{{Title: "Kälte"}}},
		"empty":      {body: `<rss version="2.0"><channel><title>All</title></channel></rss>`},
		"a page":     {body: `<!doctype html><html><body><p>Hello<br>you</p></body></html>`, fault: "neither RSS nor Atom"},
		"nothing":    {body: "", fault: "neither RSS nor Atom"},
		"cut":        {body: `<rss><channel><item><title>Fro`, fault: "no whole feed"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := entries([]byte(tt.body))
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) {
					t.Fatalf("%v, %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			u, err := address("https://news.example/feed.xml")
			if err != nil {
				t.Fatal(err)
			}
			placed(u, got)
			if !slices.EqualFunc(got, tt.want, func(a, b Entry) bool { return a.Title == b.Title && a.URL == b.URL && a.Published.Equal(b.Published) }) {
				t.Errorf("%+v", got)
			}
		})
	}
	if got, err := entries([]byte("<rss><channel>" + strings.Repeat("<item><title>x</title></item>", 1000) + "</channel></rss>")); err != nil || len(got) != mostEntries {
		t.Errorf("%d entries, %v", len(got), err)
	}
}

func TestAFeedIsFetchedAsAnyPage(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/robots.txt":
			fmt.Fprint(w, "User-agent: *\nDisallow: /closed\n")
		case "/gone":
			w.WriteHeader(http.StatusGone)
		default:
			fmt.Fprint(w, `<rss><channel><item><title>One</title><link>/1</link></item></channel></rss>`)
		}
	}))
	defer server.Close()
	if _, err := NewFetcher(FetchConfig{}).Feed(t.Context(), server.URL+"/feed"); err == nil {
		t.Error("an address of this machine was read")
	}
	f := NewFetcher(FetchConfig{Allow: []string{"127.0.0.1"}})
	if got, err := f.Feed(t.Context(), server.URL+"/feed"); err != nil || len(got) != 1 || got[0].URL != server.URL+"/1" {
		t.Errorf("%+v, %v", got, err)
	}
	for path, want := range map[string]string{"/closed": "robots.txt", "/gone": "410 Gone"} {
		if _, err := f.Feed(t.Context(), server.URL+path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func FuzzFeed(f *testing.F) {
	f.Add([]byte(`<rss><channel><item><title>One</title><link>/1</link></item></channel></rss>`))
	f.Add([]byte(`<feed><entry><title>&nbsp;</title><link href="x"/></entry></feed>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		all, err := entries(body)
		if len(all) > mostEntries || err != nil && all != nil {
			t.Errorf("%d entries, %v", len(all), err)
		}
	})
}
