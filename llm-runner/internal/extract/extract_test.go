package extract

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		if err := Serve(context.Background(), os.Args[2], os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case "overflow":
			confine()
			hoarded = make([][]byte, overflow(1))
		case "toil":
			confine()
			for {
				runtime.Gosched()
			}
		case "hoard":
			confine()
			for {
				hoarded = append(hoarded, bytes.Repeat([]byte{1}, 16<<20))
			}
		}
	}
	os.Exit(m.Run())
}

var hoarded [][]byte

// overflow calls itself until the stack is used up.
func overflow(n int) int {
	if n < 0 {
		return 0 // it does not get that far
	}
	return 1 + overflow(n+1)
}

func sample(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDocumentsAreReadWithTheirStructure(t *testing.T) {
	for _, x := range []struct {
		file, title string
		has         []string
	}{
		{"boiler.docx", "Boiler manual", []string{"# Boiler manual\n\nThe boiler was installed by Mrs Lindqvist in May 2024.\n\n## Maintenance\n\n- Drain the tank once a year.\n- Replace the anode",
			"| Part | Number |\n| --- | --- |\n| Anode \\| rod | AN-7731 |\n", "Größe: zwölf Liter."}},
		{"garden.odt", "Garden plan", []string{"# Garden plan\n\nThe apple tree is a Boskoop.\n\n## Spring\n\n- Prune the roses in March.\n- Sow the carrots.\n", "| North | Leeks |"}},
		{"lamp.epub", "The Lamp Keeper", []string{"# The storm\n\nThe lamp went out at midnight.\n\n# The morning\n"}},
		{"page.html", "Testseite", []string{"## Der Brunnen\n\nDie effiziente Pumpe", "| Montag | 12    |"}},
		{"report.pdf", "Water report", []string{"which is medium\nhard.", "the limit.\n\nThe next measurement", "number is 030\n5550199"}},
		{"browser.pdf", "Testseite", []string{"Die effiziente Pumpe fördert zweitausend Liter.\nGröße, Maß und Öl. Final affine offices.", "Seriennummer KX-4471"}},
	} {
		data := sample(t, x.file)
		if got := Sniff(data); got != ByName(x.file) {
			t.Errorf("%s is taken for %q", x.file, got)
		}
		text, err := Read(t.Context(), ByName(x.file), data)
		if err != nil {
			t.Errorf("%s: %v", x.file, err)
			continue
		}
		if text.Title != x.title || !utf8.ValidString(text.Body) {
			t.Errorf("%s has the title %q", x.file, text.Title)
		}
		for _, want := range x.has {
			if !strings.Contains(text.Body, want) {
				t.Errorf("%s lacks %q:\n%s", x.file, want, text.Body)
			}
		}
	}
}

func TestPagesAreKeptAndScansAreNamed(t *testing.T) {
	text, err := Read(t.Context(), PDF, sample(t, "report.pdf"))
	if err != nil {
		t.Fatal(err)
	}
	if len(text.Pages) != 3 || text.Pages[0] != 0 || !strings.HasPrefix(text.Body[text.Pages[2]:], "Annex:") {
		t.Errorf("pages begin at %v", text.Pages)
	}
	if len(text.Remarks) != 1 || !strings.HasPrefix(text.Remarks[0], "page 2 has no text") {
		t.Errorf("remarks %q", text.Remarks)
	}
	_, err = Read(t.Context(), PDF, pdfOf("0 0 200 200 re f"))
	if err == nil || !strings.Contains(err.Error(), "is a scan") {
		t.Errorf("a page without text: %v", err)
	}
	if got := list([]int{1, 2, 3, 7, 9, 10}); got != "1-3, 7, 9-10" {
		t.Error(got)
	}
}

// pdfOf is a PDF of one page with these operators, in Helvetica.
func pdfOf(operators string) []byte { return pdfWith(operators, "/Type /Pages /Kids [3 0 R] /Count 1") }

func pdfWith(operators, pages string) []byte {
	var b bytes.Buffer
	var at []int
	b.WriteString("%PDF-1.4\n")
	for i, o := range []string{"<< /Type /Catalog /Pages 2 0 R >>", "<< " + pages + " >>",
		"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << /Font << /F 5 0 R >> /XObject << /X 6 0 R >> >> >>",
		fmt.Sprintf("<< /Length %d >>\nstream\n%s\nendstream", len(operators), operators),
		"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
		"<< /Subtype /Form /Length 5 /Resources << /XObject << /X 6 0 R >> >> >>\nstream\n/X Do\nendstream"} {
		at = append(at, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	start := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(at)+1)
	for _, a := range at {
		fmt.Fprintf(&b, "%010d 00000 n \n", a)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(at)+1, start)
	return b.Bytes()
}

func TestPagesAreLaidOutAsTheyAreSeen(t *testing.T) {
	for what, x := range map[string][2]string{
		"a gap is a space":        {"BT /F 10 Tf 10 100 Td (one) Tj 30 0 Td (two) Tj ET", "one two"},
		"kerning is none":         {"BT /F 10 Tf 10 100 Td [(w) 60 (ord)] TJ ET", "word"},
		"a wide step is one":      {"BT /F 10 Tf 10 100 Td [(one) -300 (two)] TJ ET", "one two"},
		"a line is a line":        {"BT /F 10 Tf 12 TL 10 100 Td (one) Tj T* (two) Tj ET", "one\ntwo"},
		"a big step is a break":   {"BT /F 10 Tf 10 100 Td (one) Tj 0 -40 Td (two) Tj ET", "one\n\ntwo"},
		"cut words are joined":    {"BT /F 10 Tf 12 TL 10 100 Td (an exam-) Tj T* (ple of it) Tj ET", "an example\nof it"},
		"names keep their dash":   {"BT /F 10 Tf 12 TL 10 100 Td (Jean-) Tj T* (Paul) Tj ET", "Jean-\nPaul"},
		"ligatures are letters":   {"BT /F 10 Tf 10 100 Td <6F66> Tj ET", "of"},
		"faulty operators":        {"Q Q Tf BT /F 10 Tf (a) (b) TJ 1 Td (one) Tj ET cm", "one"},
		"pictures within picture": {"/X Do BT /F 10 Tf (one) Tj ET", "one"},
	} {
		text, err := Read(t.Context(), PDF, pdfOf(x[0]))
		if err != nil || strings.TrimSpace(text.Body) != x[1] {
			t.Errorf("%s: %q, %v", what, text.Body, err)
		}
	}
	junk := append(append([]byte("\n\njunk\n"), bytes.Replace(pdfOf("BT /F 10 Tf (one) Tj ET"), []byte("%PDF-1.4"), []byte("%PDF-2.0"), 1)...), bytes.Repeat([]byte("\x00"), 500)...)
	if text, err := Read(t.Context(), PDF, junk[7:]); err != nil || !strings.Contains(text.Body, "one") {
		t.Errorf("a newer version with something behind it: %v", err)
	}
}

func zipped(t testing.TB, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(parts); i += 2 {
		f, err := w.Create(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(parts[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBadDocumentsAreNamed(t *testing.T) {
	word := func(body string) []byte {
		return zipped(t, "word/document.xml", `<w:document xmlns:w="w"><w:body>`+body+`</w:body></w:document>`)
	}
	for what, x := range map[string]struct {
		format Format
		data   []byte
		says   string
	}{
		"a password":         {PDF, sample(t, "locked.pdf"), "is protected by a password"},
		"half a PDF":         {PDF, sample(t, "report.pdf")[:2000], "is damaged: its end is missing"},
		"no PDF":             {PDF, []byte("hello"), "is no PDF"},
		"half an archive":    {Word, sample(t, "boiler.docx")[:9000], "is damaged: it is no ZIP archive"},
		"another archive":    {Word, zipped(t, "a.txt", "a"), "is no Word document"},
		"no chapters":        {EPUB, zipped(t, "META-INF/container.xml", `<rootfile full-path="o.opf"/>`, "o.opf", "<package/>"), "without chapters"},
		"a book's shop":      {EPUB, zipped(t, "META-INF/container.xml", `<rootfile full-path="o.opf"/>`, "o.opf", `<package><manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest><spine><itemref idref="a"/></spine></package>`, "a.xhtml", "\x01\x02", "META-INF/encryption.xml", `<CipherReference URI="a.xhtml"/>`), "DRM"},
		"an ODT's password":  {ODT, zipped(t, "META-INF/manifest.xml", "<encryption-data/>", "content.xml", "x"), "is protected by a password"},
		"broken XML":         {Word, word("</w:p></w:p></w:p></w:p>"), "is damaged: an element ends"},
		"an entity bomb":     {Word, zipped(t, "word/document.xml", `<!DOCTYPE x [<!ENTITY a "`+strings.Repeat("a", 1000)+`">]><w:p><w:t>&a;</w:t></w:p>`), ""},
		"endless depth":      {Word, word(strings.Repeat("<w:p>", 5000)), "more than 1000 elements stand within each other"},
		"a bomb":             {Word, word("<w:p><w:t>" + strings.Repeat(" ", maxUnpacked) + "</w:t></w:p>"), "unpacks to more than 128 MB"},
		"a flood of text":    {Word, word("<w:p><w:t>" + strings.Repeat("word ", 2<<20) + "</w:t></w:p>"), "holds more than 8 MB of text"},
		"nothing":            {HTML, []byte("<p></p>"), "holds no text"},
		"a circle of pages":  {PDF, pdfWith("", "/Type /Pages /Kids [2 0 R 2 0 R] /Count 4000000"), "its pages lead in a circle"},
		"no format":          {"xls", []byte("x"), "has no format that is read here"},
		"a flood of letters": {PDF, pdfOf("BT /F 10 Tf (" + strings.Repeat("a", MaxText+1) + ") Tj ET"), "holds more than 8 MB of text"},
	} {
		_, err := Read(t.Context(), x.format, x.data)
		if x.says != "" && (err == nil || !strings.Contains(err.Error(), x.says) || !isUnreadable(err)) {
			t.Errorf("%s: %v, not %q", what, err, x.says)
		}
	}
}

func TestADocumentMayKillItsReaderOnly(t *testing.T) {
	read := Process(os.Args[0], "serve")
	text, err := read(t.Context(), PDF, sample(t, "report.pdf"))
	if here, err2 := Read(t.Context(), PDF, sample(t, "report.pdf")); err != nil || err2 != nil || here.Body != text.Body || len(text.Pages) != 3 {
		t.Errorf("the process reads %q, %v, %v", text.Body, err, err2)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // a reader that never ends: the caller's own patience ends it
	defer cancel()
	if _, err := Process(os.Args[0], "toil")(ctx, PDF, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an endless document: %v", err)
	}
	if _, err := read(t.Context(), Word, []byte("no archive")); err == nil || !isUnreadable(err) {
		t.Errorf("a bad document: %v", err)
	}
	const hoards = "more than 768 MB of memory"
	for how, says := range map[string]string{"overflow": "its parts lead in a circle", "hoard": hoards} {
		_, err := Process(os.Args[0], how)(t.Context(), PDF, nil)
		// The race detector keeps as much beside each stack, so that memory ends first.
		if err == nil || !isUnreadable(err) || !strings.Contains(err.Error(), says) && !strings.Contains(err.Error(), hoards) {
			t.Errorf("a document that makes its reader %s: %v", how, err)
		}
	}
	if _, err := Process(filepath.Join(t.TempDir(), "none"))(t.Context(), PDF, nil); err == nil || isUnreadable(err) {
		t.Errorf("without a program: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("docx", []byte(`<w:p><w:pStyle w:val="a"/><w:numPr/><w:t>a</w:t><w:br/></w:p><w:tbl><w:tr><w:tc><w:p><w:t>b</w:t></w:p></w:tc></w:tr></w:tbl>`))
	f.Add("odt", []byte(`<text:h text:outline-level="2">a</text:h><text:list><text:list-item><text:p>b<text:s text:c="3"/></text:p></text:list-item></text:list>`))
	f.Add("epub", []byte(`<html><body><h1>a</h1><table><tr><td>b</td></tr></table></body></html>`))
	f.Add("html", []byte(`<title>t</title><body><nav>n</nav><article><p>a<img alt=b><ul><li>c</ul></article>`))
	f.Add("pdf", []byte("BT /F 10 Tf 12 TL 1 0 0 1 5 5 Tm (one) Tj [(a) -200 (b)] TJ /X Do (c) ' ET"))
	f.Fuzz(func(t *testing.T, format string, data []byte) {
		switch Format(format) {
		case Word:
			data = zipped(t, "word/document.xml", string(data), "word/styles.xml", string(data), "word/footnotes.xml", string(data))
		case ODT:
			data = zipped(t, "content.xml", string(data), "meta.xml", string(data))
		case EPUB:
			data = zipped(t, "META-INF/container.xml", `<rootfile full-path="o.opf"/>`, "o.opf", `<package><manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>
				<spine><itemref idref="a"/></spine></package>`, "a.xhtml", string(data))
		case PDF: // what holds a page together may lead in circles and is for Process; its operators may not
			data = pdfOf(string(data))
		}
		text, err := Read(t.Context(), Format(format), data)
		if err != nil {
			return
		}
		if !utf8.ValidString(text.Body) || len(text.Body) > MaxText+1<<20 {
			t.Error("the text is none")
		}
		last := 0
		for _, p := range text.Pages {
			if p < last || p > len(text.Body) {
				t.Errorf("pages begin at %v in %d bytes", text.Pages, len(text.Body))
			}
			last = p
		}
	})
}

func BenchmarkRead(b *testing.B) {
	for _, name := range []string{"report.pdf", "browser.pdf", "boiler.docx", "garden.odt", "lamp.epub", "page.html"} {
		data := sample(b, name)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Read(b.Context(), ByName(name), data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("process", func(b *testing.B) {
		read := Process(os.Args[0], "serve")
		data := sample(b, "report.pdf")
		for b.Loop() {
			if _, err := read(b.Context(), PDF, data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
