package browse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"codeberg.org/readeck/go-readability/v2"
	htmltomarkdown "github.com/JohannesKaufmann/html-to-markdown/v2"
	"github.com/JohannesKaufmann/html-to-markdown/v2/converter"
	"golang.org/x/net/html"
	"golang.org/x/net/html/charset"

	"home.arpa/lab/llm-runner/internal/extract"
)

// A Page is what was fetched, as text.
type Page struct {
	URL       string // where it was found in the end
	Canonical string // where it says that it belongs; "" it does not say
	Title     string
	Author    string
	Site      string
	Published time.Time // zero: it does not say
	Fetched   time.Time
	Kind      string   // html, pdf or text
	Text      string   // Markdown of html, the text of others
	Pages     []int    // bytes of Text at which pages begin; nil: it has none
	Remarks   []string // what of it could not be read
	Stale     string   // why this is what it said at Fetched, and not now; "" it is what it says
}

// A Reader makes a Page of what came from an address. It fetches nothing, and its error says what is wrong with the page.
type Reader func(ctx context.Context, u *url.URL, contentType string, body []byte) (Page, error)

// kindOf sorts content types; "" is one that cannot be read.
func kindOf(contentType string, body []byte) string {
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case media == "application/pdf", bytes.HasPrefix(body, []byte("%PDF-")):
		return "pdf"
	case media == "text/html", media == "application/xhtml+xml":
		return "html"
	case strings.HasPrefix(media, "text/"), media == "application/json", media == "application/xml", strings.HasSuffix(media, "+json"), strings.HasSuffix(media, "+xml"):
		return "text"
	case err != nil || media == "application/octet-stream":
		if head := bytes.ToLower(body[:min(len(body), 512)]); bytes.Contains(head, []byte("<html")) || bytes.Contains(head, []byte("<!doctype html")) {
			return "html"
		}
		if contentType == "" && utf8.Valid(body) && !bytes.ContainsRune(body, 0) {
			return "text"
		}
	}
	return ""
}

// errNothing says that a page has nothing to read.
var errNothing = errors.New("the page has no text that can be read: it may need a browser with scripts")

// Read is a Reader. What strangers wrote can take it time and memory without end, so it is for a process of its own.
func Read(ctx context.Context, u *url.URL, contentType string, body []byte) (Page, error) {
	p := Page{URL: u.String(), Kind: kindOf(contentType, body)}
	var err error
	switch p.Kind {
	case "html":
		err = p.readHTML(u, contentType, body)
	case "pdf":
		var t extract.Text
		if t, err = extract.Read(ctx, extract.PDF, body); err != nil {
			return p, fmt.Errorf("the document %w", err)
		}
		p.Text, p.Title, p.Pages, p.Remarks = t.Body, t.Title, t.Pages, t.Remarks
		p.Published, _ = time.Parse(time.DateOnly, t.Day) // the zero time, where it has none
	case "text":
		p.Text = decode(contentType, body)
	default:
		return p, fmt.Errorf("it is %s: only HTML, PDF and text can be read", strings.TrimSpace(contentType))
	}
	if err == nil && strings.TrimSpace(p.Text) == "" {
		err = errNothing
	}
	return p, err
}

// decode returns a text in UTF-8, from whatever the server or the page says that it is in.
func decode(contentType string, body []byte) string {
	e, _, _ := charset.DetermineEncoding(body, contentType)
	if out, err := e.NewDecoder().Bytes(body); err == nil {
		body = out
	}
	return strings.ToValidUTF8(string(body), "\uFFFD")
}

func (p *Page) readHTML(u *url.URL, contentType string, body []byte) error {
	doc, err := html.Parse(strings.NewReader(decode(contentType, body)))
	if err != nil {
		return fmt.Errorf("read page: %w", err)
	}
	p.Canonical = canonical(doc, u)
	title := titleOf(doc)
	prune(doc)
	article, err := readability.FromDocument(doc, u)
	if err == nil && article.Node != nil {
		p.Title, p.Author, p.Site = article.Title(), article.Byline(), article.SiteName()
		if at, err := article.PublishedTime(); err == nil {
			p.Published = at.UTC()
		}
		p.Text, err = markdown(article.Node, u)
		if err == nil && strings.TrimSpace(p.Text) != "" {
			if p.Title == "" {
				p.Title = title
			}
			return wall(p)
		}
	}
	p.Title = title // a page without an article: all of it
	if p.Text, err = markdown(doc, u); err != nil {
		return err
	}
	return wall(p)
}

func markdown(n *html.Node, u *url.URL) (string, error) {
	text, err := htmltomarkdown.ConvertNode(n, converter.WithDomain(u.Scheme+"://"+u.Host))
	if err != nil {
		return "", fmt.Errorf("turn page into Markdown: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// walls are titles and short texts of pages that stand in front of the one that was asked for.
var walls = regexp.MustCompile(`(?i)^(just a moment|attention required|access denied|are you (a )?(human|robot)|verify(ing)? (that )?you are (a )?human|` +
	`ddos-guard|pardon our interruption|please wait|security check|robot check|403 forbidden|404 not found|page not found|502 bad gateway|503 service)`)

// wall refuses a page that is not what was asked for, though it came with status 200: such a page is no source.
func wall(p *Page) error {
	if len(p.Text) < 2000 && (walls.MatchString(strings.TrimSpace(p.Title)) || walls.MatchString(strings.TrimLeft(p.Text, "# \n"))) {
		return fmt.Errorf("the server answered with a page that is in the way of the one asked for (%.100q)", strings.TrimSpace(p.Title))
	}
	return nil
}

func attr(n *html.Node, key string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val, true
		}
	}
	return "", false
}

// each calls f for n and all below it; those below a node for which f returns false are left out.
func each(n *html.Node, f func(*html.Node) bool) {
	if !f(n) {
		return
	}
	for c := n.FirstChild; c != nil; {
		next := c.NextSibling
		each(c, f)
		c = next
	}
}

func canonical(doc *html.Node, u *url.URL) (found string) {
	each(doc, func(n *html.Node) bool {
		if rel, _ := attr(n, "rel"); n.Data == "link" && strings.EqualFold(rel, "canonical") && found == "" {
			href, _ := attr(n, "href")
			if c, err := u.Parse(href); err == nil && href != "" && (c.Scheme == "http" || c.Scheme == "https") {
				found = c.String()
			}
		}
		return found == ""
	})
	return found
}

func titleOf(doc *html.Node) (title string) {
	each(doc, func(n *html.Node) bool {
		if n.Data == "title" && n.FirstChild != nil && title == "" && (n.Parent == nil || n.Parent.Data == "head") {
			title = strings.Join(strings.Fields(n.FirstChild.Data), " ")
		}
		return title == ""
	})
	return title
}

// unseen are styles that hide text from people. What a person cannot see on a page is no part of what it says.
var unseen = regexp.MustCompile(`(?i)(display\s*:\s*none|visibility\s*:\s*(hidden|collapse)|opacity\s*:\s*0*\.?0*\s*(;|$|!)|font-size\s*:\s*0|text-indent\s*:\s*-\d{3,}|` +
	`(left|top)\s*:\s*-\d{3,}|(max-)?(height|width)\s*:\s*[01](px)?\s*(;|$)|clip\s*:\s*rect\(\s*0|clip-path\s*:\s*inset\(\s*(50|100)%|transform\s*:\s*scale\(\s*0\s*\))`)

// colours finds the colours of a style.
var colours = regexp.MustCompile(`(?i)(?:^|[;\s])(background(?:-color)?|color)\s*:\s*([^;!]+)`)

// sameColour finds white on white and the like, where both stand in one style.
func sameColour(style string) bool {
	var front, back string
	for _, m := range colours.FindAllStringSubmatch(style, -1) {
		if value := strings.ToLower(strings.TrimSpace(m[2])); strings.EqualFold(m[1], "color") {
			front = value
		} else {
			back = value
		}
	}
	return front == "transparent" || front != "" && front == back
}

// prune takes out what is not to be read: scripts, what people do not see, and pictures, of which only the words are left.
func prune(doc *html.Node) {
	var gone []*html.Node
	each(doc, func(n *html.Node) bool {
		if n.Type == html.CommentNode {
			gone = append(gone, n)
			return false
		}
		if n.Type != html.ElementNode {
			return true
		}
		style, _ := attr(n, "style")
		_, hidden := attr(n, "hidden")
		aria, _ := attr(n, "aria-hidden")
		switch n.Data {
		case "noscript", "template", "iframe", "object", "embed", "svg", "canvas", "audio", "video", "style":
			hidden = true
		case "script": // readability reads who wrote the page, and when, out of some
			kind, _ := attr(n, "type")
			hidden = hidden || kind != "application/ld+json"
		case "input":
			hidden = true
		case "img", "picture":
			alt, _ := attr(n, "alt")
			if alt = strings.Join(strings.Fields(alt), " "); alt != "" && n.Parent != nil {
				n.Parent.InsertBefore(&html.Node{Type: html.TextNode, Data: "[picture: " + alt + "]"}, n)
			}
			hidden = true
		}
		if hidden || strings.EqualFold(aria, "true") || unseen.MatchString(style) || sameColour(style) {
			gone = append(gone, n)
			return false
		}
		return true
	})
	for _, n := range gone {
		if n.Parent != nil {
			n.Parent.RemoveChild(n)
		}
	}
}
