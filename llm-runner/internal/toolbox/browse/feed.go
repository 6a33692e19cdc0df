package browse

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/html"
	"golang.org/x/net/html/charset"
)

// An Entry is one piece of news of a feed.
type Entry struct {
	Title, URL string
	Published  time.Time // zero: it does not say
}

const mostEntries = 200

// Feed reads a feed: RSS 2.0 (rssboard.org/rss-specification), RSS 1.0 or Atom (RFC 4287). The same is fetched as by Fetch, and nothing is kept.
func (f *Fetcher) Feed(ctx context.Context, raw string) ([]Entry, error) {
	u, err := address(raw)
	if err != nil {
		return nil, err
	}
	ctx, cancel := f.bounded(ctx)
	defer cancel()
	if err := f.permitted(ctx, u); err != nil {
		return nil, late(ctx, err)
	}
	final, _, body, err := f.body(ctx, u)
	if err != nil {
		return nil, late(ctx, err)
	}
	all, err := entries(body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", u, err)
	}
	placed(final, all)
	return all, nil
}

// placed makes the addresses of entries whole ones; what is none of the web is left out.
func placed(feed *url.URL, all []Entry) {
	for i := range all {
		if to, err := feed.Parse(all[i].URL); err == nil && all[i].URL != "" && (to.Scheme == "http" || to.Scheme == "https") {
			all[i].URL = to.String()
		} else {
			all[i].URL = ""
		}
	}
}

// item is an item of RSS or an entry of Atom, whatever namespaces are around it.
type item struct {
	Title string `xml:"title"`
	Links []struct {
		Href string `xml:"href,attr"`
		Rel  string `xml:"rel,attr"`
		Text string `xml:",chardata"`
	} `xml:"link"`
	PubDate   string `xml:"pubDate"`
	Date      string `xml:"date"` // dc:date of RSS 1.0
	Published string `xml:"published"`
	Updated   string `xml:"updated"`
}

// entries reads a feed's bytes. What is none is an error.
func entries(body []byte) ([]Entry, error) {
	d := xml.NewDecoder(bytes.NewReader(body))
	d.Strict, d.Entity, d.CharsetReader = false, xml.HTMLEntity, charset.NewReaderLabel
	var all []Entry
	known := false
	for len(all) < mostEntries {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("it is no whole feed: %w", err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch strings.ToLower(start.Name.Local) {
		case "rss", "feed", "rdf":
			known = true
		case "item", "entry":
			if !known {
				return nil, errNoFeed
			}
			var i item
			if err := d.DecodeElement(&i, &start); err != nil {
				return nil, fmt.Errorf("it is no whole feed: %w", err)
			}
			all = append(all, i.entry())
		default:
			if !known {
				return nil, errNoFeed
			}
		}
	}
	if !known {
		return nil, errNoFeed
	}
	return all, nil
}

var errNoFeed = errors.New("it is neither RSS nor Atom: use the address of the feed, not that of the page")

func (i item) entry() Entry {
	e := Entry{Title: bare(i.Title)}
	for _, l := range i.Links {
		if l.Rel != "" && l.Rel != "alternate" {
			continue
		}
		if to := strings.TrimSpace(l.Href + l.Text); to != "" {
			e.URL = to
			break
		}
	}
	for _, text := range []string{i.PubDate, i.Published, i.Updated, i.Date} {
		for _, form := range []string{time.RFC1123Z, time.RFC1123, "Mon, 2 Jan 2006 15:04:05 -0700", "Mon, 2 Jan 2006 15:04:05 MST", "2 Jan 2006 15:04:05 -0700", time.RFC3339, time.DateOnly} {
			if at, err := time.Parse(form, strings.TrimSpace(text)); err == nil && e.Published.IsZero() {
				e.Published = at
			}
		}
	}
	return e
}

// bare is a title without the markup that some feeds put into it.
func bare(title string) string {
	var b strings.Builder
	z := html.NewTokenizer(strings.NewReader(title))
	for {
		switch z.Next() {
		case html.ErrorToken:
			return strings.Join(strings.Fields(b.String()), " ")
		case html.TextToken:
			b.Write(z.Text())
		}
	}
}
