package web

import (
	"bytes"
	"html"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/alecthomas/chroma/v2"
	"github.com/alecthomas/chroma/v2/lexers"
	"github.com/microcosm-cc/bluemonday"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/renderer"
	goldhtml "github.com/yuin/goldmark/renderer/html"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A block is the sanitised HTML of one top-level block of an answer.
type block = string

// markdown turns what a model wrote into HTML that is safe to show: raw HTML is shown as the text it is, images become
// links (a picture from elsewhere would tell its host who reads what), and the result is sanitised once more. It is safe
// for concurrent use.
type markdown struct {
	md     goldmark.Markdown
	policy *bluemonday.Policy
}

func newMarkdown() *markdown {
	m := &markdown{policy: policy()}
	m.md = goldmark.New(
		goldmark.WithExtensions(
			extension.NewTable(extension.WithTableCellAlignMethod(extension.TableCellAlignAttribute)), // no style attributes
			extension.Strikethrough, extension.TaskList,
			extension.NewLinkify(extension.WithLinkifyAllowedProtocols([][]byte{[]byte("http:"), []byte("https:")})),
		),
		goldmark.WithParserOptions(parser.WithInlineParsers(util.Prioritized(citationParser{}, 150))), // before links (200)
		goldmark.WithRendererOptions(renderer.WithNodeRenderers(util.Prioritized(nodes{}, 100))),
	)
	return m
}

// classes are those that the renderer writes.
var classes = regexp.MustCompile(`^(code|copy|cite|image|[kstcnf]|g[di])$`)

// policy is what may be in an answer, whatever the renderer wrote.
func policy() *bluemonday.Policy {
	p := bluemonday.NewPolicy()
	p.AllowElements("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "li", "blockquote", "pre", "code", "em", "strong",
		"del", "sup", "table", "thead", "tbody", "tr", "figure", "figcaption")
	p.AllowAttrs("start").Matching(bluemonday.Integer).OnElements("ol")
	p.AllowElements("ol")
	p.AllowAttrs("align").Matching(bluemonday.CellAlign).OnElements("th", "td")
	p.AllowElements("th", "td")
	p.AllowAttrs("class").Matching(classes).OnElements("span", "sup", "figure", "a", "button")
	p.AllowAttrs("type").Matching(bluemonday.SpaceSeparatedTokens).OnElements("button", "input")
	p.AllowAttrs("checked", "disabled").OnElements("input")
	p.AllowURLSchemes("http", "https", "mailto")
	p.AllowRelativeURLs(true)
	p.AllowAttrs("href", "title").OnElements("a")
	p.RequireNoFollowOnLinks(true)
	p.RequireNoReferrerOnLinks(true)
	p.AddTargetBlankToFullyQualifiedLinks(true)
	return p
}

var citationsKey = parser.NewContextKey()

// parse reads Markdown; refs are the link definitions that stand before it, citations how many numbers mean a source.
func (m *markdown) parse(source []byte, refs []parser.Reference, citations []llm.Citation) (ast.Node, parser.Context) {
	ctx := parser.NewContext()
	for _, r := range refs {
		ctx.AddReference(r)
	}
	ctx.Set(citationsKey, citations)
	return m.md.Parser().Parse(text.NewReader(source), parser.WithContext(ctx)), ctx
}

// render returns the HTML of one top-level block.
func (m *markdown) render(source []byte, n ast.Node) block {
	var b bytes.Buffer
	if err := m.md.Renderer().Render(&b, source, n); err != nil {
		return "<p>" + html.EscapeString(string(source)) + "</p>" // a bytes.Buffer does not fail
	}
	return strings.TrimSpace(m.policy.Sanitize(b.String()))
}

// blocks renders a whole text.
func (m *markdown) blocks(source string, citations []llm.Citation) []block {
	src := []byte(source)
	doc, _ := m.parse(src, nil, citations)
	return m.children(src, doc)
}

func (m *markdown) children(src []byte, doc ast.Node) []block {
	var all []block
	for n := doc.FirstChild(); n != nil; n = n.NextSibling() {
		all = append(all, m.render(src, n))
	}
	return all
}

// nodes renders what must differ from goldmark's own HTML.
type nodes struct{}

func (nodes) RegisterFuncs(r renderer.NodeRendererFuncRegisterer) {
	r.Register(ast.KindHTMLBlock, htmlBlock)
	r.Register(ast.KindRawHTML, rawHTML)
	r.Register(ast.KindImage, image)
	r.Register(ast.KindFencedCodeBlock, fencedCode)
	r.Register(ast.KindCodeBlock, indentedCode)
	r.Register(kindCitation, citationMark)
}

func htmlBlock(w util.BufWriter, source []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
	if entering {
		w.WriteString("<p>")
		writeLines(w, source, n)
		if b := n.(*ast.HTMLBlock); b.HasClosure() {
			w.WriteString(html.EscapeString(string(b.ClosureLine.Value(source))))
		}
		w.WriteString("</p>\n")
	}
	return ast.WalkSkipChildren, nil
}

func rawHTML(w util.BufWriter, source []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
	if entering {
		segments := n.(*ast.RawHTML).Segments
		for i := range segments.Len() {
			s := segments.At(i)
			w.WriteString(html.EscapeString(string(s.Value(source))))
		}
	}
	return ast.WalkSkipChildren, nil
}

// image writes a link: the reader decides whether its host learns of them.
func image(w util.BufWriter, source []byte, node ast.Node, entering bool) (ast.WalkStatus, error) {
	n := node.(*ast.Image)
	if !entering {
		w.WriteString("</a>")
		return ast.WalkContinue, nil
	}
	w.WriteString(`<a class="image" href="`)
	if !goldhtml.IsDangerousURL(n.Destination) {
		w.Write(util.EscapeHTML(util.URLEscape(n.Destination, true)))
	}
	w.WriteString(`">`)
	if n.FirstChild() == nil {
		w.WriteString("image")
	}
	return ast.WalkContinue, nil
}

func indentedCode(w util.BufWriter, source []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
	if entering {
		openCode(w, "")
		writeLines(w, source, n)
		w.WriteString(closeCode)
	}
	return ast.WalkSkipChildren, nil
}

func fencedCode(w util.BufWriter, source []byte, node ast.Node, entering bool) (ast.WalkStatus, error) {
	if !entering {
		return ast.WalkContinue, nil
	}
	n := node.(*ast.FencedCodeBlock)
	language := string(n.Language(source))
	openCode(w, language)
	var code strings.Builder
	for i := range n.Lines().Len() {
		line := n.Lines().At(i)
		code.Write(line.Value(source))
	}
	highlight(w, language, code.String())
	w.WriteString(closeCode)
	return ast.WalkSkipChildren, nil
}

const closeCode = "</code></pre></figure>\n"

func openCode(w util.BufWriter, language string) {
	w.WriteString(`<figure class="code"><figcaption>` + html.EscapeString(language) +
		`<button type="button" class="copy">Copy</button></figcaption><pre><code>`)
}

func writeLines(w util.BufWriter, source []byte, n ast.Node) {
	for i := range n.Lines().Len() {
		line := n.Lines().At(i)
		w.WriteString(html.EscapeString(string(line.Value(source))))
	}
}

// highlightMost is the size in bytes beyond which code is shown plain: the lexers are regular expressions.
const highlightMost = 64 << 10

// highlight writes code with its tokens in a few classes; the colours are the style sheet's.
func highlight(w util.BufWriter, language, code string) {
	lexer := lexers.Get(language)
	if language == "" || lexer == nil || len(code) > highlightMost {
		w.WriteString(html.EscapeString(code))
		return
	}
	tokens, err := chroma.Coalesce(lexer).Tokenise(nil, code)
	if err != nil {
		w.WriteString(html.EscapeString(code))
		return
	}
	for t := range tokens.Stdlib() {
		class := tokenClass(t.Type)
		if class == "" || strings.TrimSpace(t.Value) == "" {
			w.WriteString(html.EscapeString(t.Value))
			continue
		}
		w.WriteString(`<span class="` + class + `">` + html.EscapeString(t.Value) + `</span>`)
	}
}

func tokenClass(t chroma.TokenType) string {
	switch {
	case t == chroma.GenericDeleted:
		return "gd"
	case t == chroma.GenericInserted:
		return "gi"
	case t == chroma.GenericHeading, t == chroma.GenericSubheading:
		return "k"
	case t == chroma.NameFunction, t == chroma.NameFunctionMagic, t == chroma.NameDecorator:
		return "f"
	case t == chroma.NameTag, t == chroma.NameClass, t == chroma.NameBuiltin, t == chroma.KeywordType, t == chroma.NameAttribute:
		return "t"
	}
	switch t.Category() {
	case chroma.Keyword:
		return "k"
	case chroma.Comment:
		return "c"
	case chroma.Literal:
		if t.SubCategory() == chroma.LiteralNumber {
			return "n"
		}
		return "s"
	}
	return ""
}

// citation is a number in square brackets that stands for one of the answer's sources.
type citation struct {
	ast.BaseInline
	number int
	href   string
}

var kindCitation = ast.NewNodeKind("Citation")

func (*citation) Kind() ast.NodeKind { return kindCitation }

func (n *citation) Dump(source []byte, level int) { ast.DumpHelper(n, source, level, nil, nil) }

type citationParser struct{}

func (citationParser) Trigger() []byte { return []byte{'['} }

func (citationParser) Parse(_ ast.Node, block text.Reader, pc parser.Context) ast.Node {
	sources, _ := pc.Get(citationsKey).([]llm.Citation)
	if len(sources) == 0 {
		return nil
	}
	line, _ := block.PeekLine()
	i := 1
	for i < len(line) && i < 5 && unicode.IsDigit(rune(line[i])) {
		i++
	}
	if i == 1 || i >= len(line) || line[i] != ']' || i+1 < len(line) && line[i+1] == '(' {
		return nil
	}
	n, err := strconv.Atoi(string(line[1:i]))
	if err != nil || n < 1 || n > len(sources) {
		return nil
	}
	block.Advance(i + 1)
	return &citation{number: n, href: noteLink(sources[n-1])}
}

func citationMark(w util.BufWriter, _ []byte, node ast.Node, entering bool) (ast.WalkStatus, error) {
	if n := node.(*citation); entering {
		w.WriteString(`<sup class="cite"><a class="cite" href="` + html.EscapeString(n.href) + `">` + strconv.Itoa(n.number) + `</a></sup>`)
	}
	return ast.WalkSkipChildren, nil
}
