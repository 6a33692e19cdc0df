// Package extract reads the text out of documents that are not plain text: web pages, PDF, Word, OpenDocument and EPUB. Their bytes
// are strangers' work, so everything is bounded, and Process reads them in a process of its own that may die of them.
package extract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// A Format is a kind of document.
type Format string

// The formats.
const (
	Markdown Format = "markdown"
	Plain    Format = "text"
	HTML     Format = "html"
	PDF      Format = "pdf"
	Word     Format = "docx"
	ODT      Format = "odt"
	EPUB     Format = "epub"
)

// Bounds, in bytes unless they say otherwise. What is beyond them is no document that anybody reads.
const (
	MaxFile  = 64 << 20 // of a document
	MaxText  = 8 << 20  // of what is read out of it
	maxPages = 5000
)

// A Text is what was read out of a document.
type Text struct {
	Title string `json:"title,omitempty"` // "": the document has none
	Day   string `json:"day,omitempty"`   // YYYY-MM-DD, as the document says; "" it does not
	// Body is the text, as Markdown where the document has structure. It is valid UTF-8 and does not change: what is quoted from
	// the document are bytes of it.
	Body string `json:"body"`
	// Pages holds where in Body each page begins; the first is 0. nil: the format has no pages.
	Pages []int `json:"pages,omitempty"`
	// Remarks are what could not be read, in words: "pages 3 and 4 have no text; they are scans".
	Remarks []string `json:"remarks,omitempty"`
}

// A Reader reads documents: Read, or one that does it in another process.
type Reader func(ctx context.Context, format Format, data []byte) (Text, error)

// An Unreadable says why a document cannot be read, as a predicate: "is protected by a password". Reading it again would not help.
type Unreadable string

func (u Unreadable) Error() string { return string(u) }

// ByName returns the format that a name's ending says, or "".
func ByName(name string) Format {
	switch strings.ToLower(path.Ext(name)) {
	case ".md", ".markdown":
		return Markdown
	case ".txt":
		return Plain
	case ".html", ".htm", ".xhtml":
		return HTML
	case ".pdf":
		return PDF
	case ".docx":
		return Word
	case ".odt":
		return ODT
	case ".epub":
		return EPUB
	}
	return ""
}

// ByType returns the format of a media type (RFC 9110, section 8.3), or "".
func ByType(mediaType string) Format {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	switch strings.ToLower(strings.TrimSpace(mediaType)) {
	case "text/markdown", "text/x-markdown":
		return Markdown
	case "text/plain":
		return Plain
	case "text/html", "application/xhtml+xml":
		return HTML
	case "application/pdf":
		return PDF
	case "application/vnd.openxmlformats-officedocument.wordprocessingml.document":
		return Word
	case "application/vnd.oasis.opendocument.text":
		return ODT
	case "application/epub+zip":
		return EPUB
	}
	return ""
}

// Sniff returns the format that the first bytes of a document show, or "": text without a mark may be anything.
func Sniff(data []byte) Format {
	head := data[:min(len(data), 1024)]
	switch {
	case bytes.HasPrefix(head, []byte("%PDF-")), bytes.Contains(head, []byte("%PDF-")) && (!utf8.Valid(data) || slices.Contains(data, 0)):
		return PDF // with junk before it, which readers of PDF bear, unless it is a text about PDF
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		switch {
		case bytes.Contains(head, []byte("application/epub+zip")):
			return EPUB
		case bytes.Contains(head, []byte("application/vnd.oasis.opendocument.text")):
			return ODT
		case bytes.Contains(data, []byte("word/document.xml")):
			return Word
		}
		return ""
	}
	start := bytes.ToLower(bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n"))
	if bytes.HasPrefix(start, []byte("<!doctype html")) || bytes.HasPrefix(start, []byte("<html")) {
		return HTML
	}
	return ""
}

// Kind names what bytes are that are no text, for people; "" where that is not known.
func Kind(data []byte) string {
	for _, k := range []struct{ mark, name string }{
		{"%PDF-", "a PDF document"}, {"PK\x03\x04", "a ZIP archive or an office document"}, {"\x89PNG", "a PNG picture"}, {"\xff\xd8\xff", "a JPEG picture"},
		{"GIF8", "a GIF picture"}, {"\x1f\x8b", "a gzip archive"}, {"\x7fELF", "a program"}, {"MZ", "a program"}, {"SQLite format 3", "an SQLite database"},
		{"ID3", "a sound file"}, {"OggS", "a sound file"}, {"fLaC", "a sound file"},
	} {
		if bytes.HasPrefix(data, []byte(k.mark)) {
			return k.name
		}
	}
	if len(data) > 12 && bytes.Equal(data[4:8], []byte("ftyp")) {
		return "a video or sound file"
	}
	return ""
}

// Read reads a document here and now. Whatever goes wrong is an error, an Unreadable where the document is to blame; what Go cannot recover from
// (a stack without end, memory without end) ends the process, so documents of strangers are for Process.
func Read(ctx context.Context, format Format, data []byte) (t Text, err error) {
	defer func() {
		if p := recover(); p != nil {
			t, err = Text{}, Unreadable(fmt.Sprintf("is damaged: its parts do not fit together (%.100v)", p))
		}
	}()
	if err := ctx.Err(); err != nil {
		return Text{}, err
	}
	if len(data) > MaxFile {
		return Text{}, tooLarge()
	}
	switch format {
	case Markdown, Plain:
		t, err = Text{Body: string(data)}, nil
		if !utf8.Valid(data) {
			return Text{}, Unreadable("is not UTF-8 text")
		}
		return t, err
	case HTML:
		t, err = readHTML(data)
	case PDF:
		t, err = readPDF(ctx, data)
	case Word:
		t, err = readWord(data)
	case ODT:
		t, err = readODT(data)
	case EPUB:
		t, err = readEPUB(data)
	default:
		return Text{}, Unreadable(fmt.Sprintf("has no format that is read here (%q)", format))
	}
	if err != nil {
		return Text{}, err
	}
	if strings.TrimSpace(t.Body) == "" {
		return Text{}, Unreadable("holds no text")
	}
	t.Title = oneLine(t.Title)
	return t, nil
}

func tooLarge() error { return Unreadable(fmt.Sprintf("is larger than %d MB", MaxFile>>20)) }

var errText = Unreadable(fmt.Sprintf("holds more than %d MB of text", MaxText>>20))

// oneLine is a title on one line, and not endless.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(tidy(s)), " ")
	if n := 300; len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return s
}

// tidy makes text out of what a document calls text: valid UTF-8 in one normal form (NFC), without control characters and soft hyphens.
func tidy(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r' || r == '\f' || r == '\v' || r == '\u2028' || r == '\u2029':
			return '\n'
		case r == '\u00ad' || r == '\ufeff' || r == '\u200b' || unicode.IsControl(r):
			return -1
		}
		return r
	}, strings.ReplaceAll(s, "\r\n", "\n"))
	return norm.NFC.String(s)
}

// A writing gathers a body, and refuses to grow beyond MaxText.
type writing struct {
	strings.Builder
}

// block writes text as a block of its own: a blank line stands before it.
func (w *writing) block(text string) {
	text = strings.TrimRight(text, " \t\n")
	if strings.TrimSpace(text) == "" {
		return
	}
	if w.Len() > 0 {
		w.WriteString("\n")
	}
	w.WriteString(text)
	w.WriteString("\n")
	w.check()
}

// line writes text as a line right below the last one.
func (w *writing) line(text string) {
	w.WriteString(strings.TrimRight(text, " \t\n"))
	w.WriteString("\n")
	w.check()
}

func (w *writing) check() {
	if w.Len() > MaxText {
		panic(errText)
	}
}

// bounded turns the panic of a writing that grew too large into its error.
func bounded(err *error) {
	if p := recover(); p != nil {
		u, ok := p.(Unreadable)
		if !ok {
			panic(p)
		}
		*err = u
	}
}

// isUnreadable says that a document is to blame for err.
func isUnreadable(err error) bool {
	var u Unreadable
	return errors.As(err, &u)
}
