package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// aPDF is a document with a page for each text; "" is a page without one.
func aPDF(texts ...string) []byte {
	var b bytes.Buffer
	var at []int
	object := func(format string, args ...any) {
		at = append(at, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n"+format+"\nendobj\n", append([]any{len(at)}, args...)...)
	}
	b.WriteString("%PDF-1.4\n")
	kids := make([]string, len(texts))
	for i := range texts {
		kids[i] = fmt.Sprintf("%d 0 R", 4+2*i)
	}
	object("<< /Type /Catalog /Pages 2 0 R >>")
	object("<< /Type /Pages /Kids [%s] /Count %d >>", strings.Join(kids, " "), len(texts))
	object("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
	for i, text := range texts {
		object("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Resources << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>", 5+2*i)
		stream := ""
		if text != "" {
			stream = "BT /F1 12 Tf 10 100 Td (" + text + ") Tj ET"
		}
		object("<< /Length %d >>\nstream\n%s\nendstream", len(stream), stream)
	}
	xref := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(at)+1)
	for _, n := range at {
		fmt.Fprintf(&b, "%010d 00000 n \n", n)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(at)+1, xref)
	return b.Bytes()
}

func TestAPDFIsReadPageByPage(t *testing.T) {
	text, _, err := readPDF(aPDF("Ferns want shade.", "", "And water."))
	if err != nil || text != "## Page 1\n\nFerns want shade.\n\n## Page 3\n\nAnd water.\n\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, _, err := readPDF(aPDF("", "")); err == nil || !strings.Contains(err.Error(), "a scan") {
		t.Errorf("a scan: %v", err)
	}
	whole := aPDF("Ferns want shade.")
	for n := range len(whole) {
		readPDF(whole[:n]) //nolint:errcheck // it must not panic
	}
	if _, _, err := readPDF([]byte("%PDF-1.4\nnothing")); err == nil {
		t.Error("a damaged one was read")
	}
}
