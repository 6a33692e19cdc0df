package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/ledongthuc/pdf"
	"golang.org/x/text/unicode/norm"
)

// readPDF returns the text of a PDF, page by page. A document of pictures has none, and that is said.
func readPDF(body []byte) (text, title string, err error) {
	defer func() { // the reader panics on some documents that are damaged
		if p := recover(); p != nil {
			text, err = "", fmt.Errorf("read PDF: it is damaged (%.100v)", p)
		}
	}()
	r, err := pdf.NewReader(bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return "", "", fmt.Errorf("read PDF: %w", err)
	}
	var b strings.Builder
	fonts := map[string]*pdf.Font{}
	for n := 1; n <= r.NumPage(); n++ {
		page := r.Page(n)
		if page.V.IsNull() {
			continue
		}
		for _, name := range page.Fonts() {
			if _, ok := fonts[name]; !ok {
				f := page.Font(name)
				fonts[name] = &f
			}
		}
		words, err := page.GetPlainText(fonts)
		if err != nil {
			return "", "", fmt.Errorf("read page %d of the PDF: %w", n, err)
		}
		if words = strings.TrimSpace(norm.NFKC.String(words)); words != "" { // ligatures become letters
			fmt.Fprintf(&b, "## Page %d\n\n%s\n\n", n, words)
		}
	}
	if b.Len() == 0 {
		return "", "", errors.New("the PDF has no text: its pages are pictures (a scan)")
	}
	return b.String(), strings.TrimSpace(r.Trailer().Key("Info").Key("Title").Text()), nil
}
