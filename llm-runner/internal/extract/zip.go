package extract

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/net/html/charset"
)

// Bounds of archives: a document of a thousand pages unpacks to some 20 MB. A bomb unpacks to whatever it likes.
const (
	maxUnpacked = 128 << 20 // bytes of all parts that are read together
	maxParts    = 20_000
	maxDepth    = 1000 // elements within each other
)

// An archive is a ZIP file whose parts are read within one bound.
type archive struct {
	parts map[string]*zip.File
	left  int64
}

func openArchive(data []byte) (*archive, error) {
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, Unreadable("is damaged: it is no ZIP archive, or not all of one")
	}
	if len(r.File) > maxParts {
		return nil, Unreadable(fmt.Sprintf("is an archive of more than %d parts", maxParts))
	}
	a := &archive{parts: make(map[string]*zip.File, len(r.File)), left: maxUnpacked}
	for _, f := range r.File {
		a.parts[strings.TrimPrefix(path.Clean("/"+f.Name), "/")] = f
	}
	return a, nil
}

// errMissing says that an archive has no such part.
var errMissing = errors.New("the part is missing")

// read returns a part of the archive, or errMissing.
func (a *archive) read(name string) ([]byte, error) {
	f := a.parts[strings.TrimPrefix(path.Clean("/"+name), "/")]
	if f == nil {
		return nil, errMissing
	}
	if f.Flags&1 != 0 {
		return nil, Unreadable("is protected by a password")
	}
	r, err := f.Open()
	if err != nil {
		return nil, Unreadable(fmt.Sprintf("is damaged: its part %.60q cannot be unpacked", name))
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, a.left+1))
	a.left -= int64(len(data))
	switch {
	case a.left < 0:
		return nil, Unreadable(fmt.Sprintf("unpacks to more than %d MB", maxUnpacked>>20))
	case err != nil:
		return nil, Unreadable(fmt.Sprintf("is damaged: its part %.60q cannot be unpacked", name))
	}
	return data, nil
}

// An element is where a walk through XML is. Names are local: prefixes vary from writer to writer, their meanings do not.
type element struct {
	name  string
	attrs []xml.Attr
}

func (e element) attr(name string) string {
	for _, a := range e.attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// walkXML calls open and close for every element and text for what stands between. Where open returns false, the element is left out with
// all that is in it, and not closed.
func walkXML(data []byte, open func(element) bool, shut func(name string), text func(string)) error {
	d := xml.NewDecoder(bytes.NewReader(data))
	d.Strict = false
	d.CharsetReader = charset.NewReaderLabel
	depth, skip := 0, 0
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return Unreadable(fmt.Sprintf("is damaged: %.100v", err))
		}
		switch t := token.(type) {
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return Unreadable(fmt.Sprintf("is damaged: more than %d elements stand within each other", maxDepth))
			}
			if skip > 0 || !open(element{t.Name.Local, t.Attr}) {
				skip++
			}
		case xml.EndElement:
			if depth--; depth < 0 {
				return Unreadable("is damaged: an element ends that did not begin")
			}
			if skip > 0 {
				skip--
			} else {
				shut(t.Name.Local)
			}
		case xml.CharData:
			if skip == 0 {
				text(string(t))
			}
		}
	}
}

// titleOf returns the title and the day of the document's properties: dc:title, and the first of the dates.
func titleOf(properties []byte) (title, day string) {
	at := ""
	walkXML(properties, func(e element) bool { at = e.name; return true }, func(string) { at = "" }, func(s string) { //nolint:errcheck // a title is no reason to lose a document
		switch at {
		case "title":
			title += s
		case "date", "created", "creation-date":
			if len(s) >= 10 && day == "" && s[4] == '-' && s[7] == '-' {
				day = s[:10]
			}
		}
	})
	return title, day
}
