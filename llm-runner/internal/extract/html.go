package extract

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"codeberg.org/readeck/go-readability/v2"
	"github.com/JohannesKaufmann/html-to-markdown/v2/converter"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/base"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/commonmark"
	"github.com/JohannesKaufmann/html-to-markdown/v2/plugin/table"
	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	"golang.org/x/net/html/charset"
)

// maxHTML bounds a page: its tree takes some fifty times its bytes.
const maxHTML = 8 << 20

// readHTML reads a web page: its article, or all of its body where it has none that stands out.
func readHTML(data []byte) (t Text, err error) {
	doc, err := parseHTML(data)
	if err != nil {
		return t, err
	}
	// Articles are found by a copy, for finding changes it.
	article, err := readability.FromDocument(doc, nil)
	if err == nil {
		t.Title = article.Title()
		if when, err := article.PublishedTime(); err == nil {
			t.Day = when.Format(time.DateOnly)
		}
	}
	if t.Title == "" {
		if n := find(doc, atom.Title); n != nil {
			t.Title = textOf(n)
		}
	}
	body := find(doc, atom.Body)
	if body == nil {
		body = doc
	}
	whole := len(textOf(body))
	best := body
	if article.Node != nil && len(textOf(article.Node)) > min(whole/4, 500) {
		best = article.Node
	}
	text, err := markdownOf(best)
	if err != nil {
		return t, err
	}
	if title := oneLine(t.Title); title != "" && !strings.HasPrefix(text, "# ") {
		text = "# " + title + "\n\n" + text
	}
	t.Body = text
	return t, nil
}

func parseHTML(data []byte) (*html.Node, error) {
	if len(data) > maxHTML {
		return nil, Unreadable(fmt.Sprintf("is a page of more than %d MB", maxHTML>>20))
	}
	r, err := charset.NewReader(bytes.NewReader(data), "text/html")
	if err != nil {
		return nil, Unreadable("is in no encoding that is known")
	}
	doc, err := html.Parse(r)
	if err != nil {
		return nil, Unreadable(fmt.Sprintf("is damaged: %.100v", err))
	}
	drop(doc)
	return doc, nil
}

// drop takes out what is no text: scripts, styles, forms, and pictures but for their words.
func drop(n *html.Node) {
	for c := n.FirstChild; c != nil; {
		next := c.NextSibling
		switch c.DataAtom {
		case atom.Script:
			if !jsonLD(c) { // readability reads titles and dates from those
				n.RemoveChild(c)
			}
		case atom.Style, atom.Noscript, atom.Template, atom.Iframe, atom.Object, atom.Embed, atom.Canvas, atom.Svg, atom.Audio, atom.Video,
			atom.Button, atom.Input, atom.Select, atom.Textarea, atom.Link:
			n.RemoveChild(c)
		case atom.Img:
			alt := attr(c, "alt")
			if strings.TrimSpace(alt) == "" {
				n.RemoveChild(c)
				break
			}
			n.InsertBefore(&html.Node{Type: html.TextNode, Data: alt}, c)
			n.RemoveChild(c)
		default:
			drop(c)
		}
		c = next
	}
}

func jsonLD(n *html.Node) bool { return strings.EqualFold(attr(n, "type"), "application/ld+json") }

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if strings.EqualFold(a.Key, name) {
			return a.Val
		}
	}
	return ""
}

func find(n *html.Node, what atom.Atom) *html.Node {
	for c := range n.Descendants() {
		if c.DataAtom == what {
			return c
		}
	}
	return nil
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode && (c.Parent == nil || c.Parent.DataAtom != atom.Script) {
			b.WriteString(strings.TrimSpace(c.Data) + " ")
		}
	}
	return strings.TrimSpace(b.String())
}

// markdownOf writes a tree as Markdown.
func markdownOf(n *html.Node) (string, error) {
	c := converter.NewConverter(converter.WithPlugins(base.NewBasePlugin(), commonmark.NewCommonmarkPlugin(commonmark.WithListEndComment(false)), table.NewTablePlugin()))
	md, err := c.ConvertNode(n)
	if err != nil {
		return "", Unreadable(fmt.Sprintf("is damaged: %.100v", err))
	}
	if len(md) > MaxText {
		return "", errText
	}
	text := strings.TrimSpace(tidy(string(md)))
	if text == "" {
		return "", nil
	}
	return text + "\n", nil
}

// readEPUB reads an EPUB book (W3C EPUB 3.3), chapter by chapter in the order of its spine.
func readEPUB(data []byte) (t Text, err error) {
	defer bounded(&err)
	a, err := openArchive(data)
	if err != nil {
		return t, err
	}
	where, err := a.read("META-INF/container.xml")
	if errors.Is(err, errMissing) {
		return t, Unreadable("is no EPUB book: it has no META-INF/container.xml")
	}
	if err != nil {
		return t, err
	}
	root := ""
	if err := walkXML(where, func(e element) bool {
		if e.name == "rootfile" && root == "" {
			root = e.attr("full-path")
		}
		return true
	}, func(string) {}, func(string) {}); err != nil {
		return t, err
	}
	pack, err := a.read(root)
	if errors.Is(err, errMissing) {
		return t, Unreadable(fmt.Sprintf("is no whole EPUB book: its package %.80q is missing", root))
	}
	if err != nil {
		return t, err
	}
	t.Title, t.Day = titleOf(pack)
	chapters, err := spine(pack, path.Dir(root))
	if err != nil {
		return t, err
	}
	locked := map[string]bool{}
	if list, err := a.read("META-INF/encryption.xml"); err == nil {
		walkXML(list, func(e element) bool { //nolint:errcheck // what is locked does not parse either
			if e.name == "CipherReference" {
				name, _ := url.PathUnescape(e.attr("URI"))
				locked[path.Clean(name)] = true
			}
			return true
		}, func(string) {}, func(string) {})
	}
	var out writing
	missing := 0
	for _, name := range chapters {
		if locked[name] {
			return t, Unreadable("is locked by its shop (DRM)")
		}
		chapter, err := a.read(name)
		if errors.Is(err, errMissing) {
			missing++
			continue
		}
		if err != nil {
			return t, err
		}
		doc, err := parseHTML(asHTML(chapter))
		if err != nil {
			return t, err
		}
		body := find(doc, atom.Body)
		if body == nil {
			continue
		}
		text, err := markdownOf(body)
		if err != nil {
			return t, err
		}
		out.block(text)
	}
	switch missing {
	case 0:
	case 1:
		t.Remarks = append(t.Remarks, "one chapter is missing in the file")
	default:
		t.Remarks = append(t.Remarks, fmt.Sprintf("%d chapters are missing in the file", missing))
	}
	t.Body = out.String()
	return t, nil
}

// asHTML makes XHTML fit for a reader of HTML, which knows no elements that close themselves: <title/> would swallow the page.
func asHTML(chapter []byte) []byte {
	for _, name := range []string{"title", "script", "style"} {
		chapter = bytes.ReplaceAll(chapter, []byte("<"+name+"/>"), nil)
	}
	return chapter
}

// spine returns the names of a book's chapters in the archive, in order.
func spine(pack []byte, dir string) ([]string, error) {
	type item struct {
		ID   string `xml:"id,attr"`
		Href string `xml:"href,attr"`
		Type string `xml:"media-type,attr"`
		What string `xml:"properties,attr"`
	}
	var book struct {
		Items []item `xml:"manifest>item"`
		Order []struct {
			ID string `xml:"idref,attr"`
		} `xml:"spine>itemref"`
	}
	d := xml.NewDecoder(bytes.NewReader(pack))
	d.Strict = false
	d.CharsetReader = charset.NewReaderLabel
	if err := d.Decode(&book); err != nil {
		return nil, Unreadable(fmt.Sprintf("is damaged: %.100v", err))
	}
	at := map[string]item{}
	for _, i := range book.Items {
		at[i.ID] = i
	}
	var all []string
	for _, o := range book.Order {
		i, ok := at[o.ID]
		if !ok || !strings.Contains(i.Type, "html") || strings.Contains(" "+i.What+" ", " nav ") { // the table of contents says all twice
			continue
		}
		href, err := url.PathUnescape(i.Href)
		if err != nil {
			href = i.Href
		}
		all = append(all, path.Join(dir, href))
	}
	if len(all) == 0 {
		return nil, Unreadable("is an EPUB book without chapters")
	}
	return all, nil
}
