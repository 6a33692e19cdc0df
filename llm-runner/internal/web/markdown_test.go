package web

import (
	"regexp"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
)

// hostile is what a model may be made to write.
var hostile = []string{
	`<script>window.hacked=1</script>`,
	`<img src=x onerror="window.hacked=1">`,
	`<svg onload="window.hacked=1"><script>window.hacked=1</script></svg>`,
	`<style>body{display:none}</style>`,
	`<iframe src="https://evil.example/"></iframe>`,
	`<a href="javascript:window.hacked=1">x</a>`,
	`<form action="https://evil.example/"><input name=p></form>`,
	`<meta http-equiv="refresh" content="0;url=https://evil.example/">`,
	`<base href="https://evil.example/">`,
	`<link rel=stylesheet href="https://evil.example/x.css">`,
	`<button type="submit" formaction="https://evil.example/" class="copy">x</button>`,
	`<<script>script>window.hacked=1<</script>/script>`,
	"<div\nonmouseover=window.hacked=1>x</div>",
	`[x](javascript:window.hacked=1)`,
	`[x](JaVaScRiPt:window.hacked=1)`,
	`[x](&#106;avascript:window.hacked=1)`,
	`[x](data:text/html;base64,PHNjcmlwdD4=)`,
	`[x](vbscript:window.hacked=1)`,
	`![x](https://evil.example/pixel.png)`,
	`![x](data:image/svg+xml;base64,PHN2Zz4=)`,
	`![x](javascript:window.hacked=1)`,
	`![x" onerror="window.hacked=1](https://evil.example/a.png "t\" onerror=\"window.hacked=1")`,
	`[x](https://evil.example/" onclick="window.hacked=1)`,
	`<javascript:window.hacked=1>`,
	"[x]: javascript:window.hacked=1\n\n[x]",
	"```html\" onload=\"window.hacked=1\n<script>window.hacked=1</script>\n```",
	"```<script>\nx\n```",
	"    <script>window.hacked=1</script>",
	"`<script>window.hacked=1</script>`",
	"| <script>a</script> | b |\n|--|--|\n| <img src=x onerror=window.hacked=1> | c |",
	"- [ ] <input type=text onfocus=window.hacked=1 autofocus>",
	"# <svg/onload=window.hacked=1>",
	"&lt;script&gt;window.hacked=1&lt;/script&gt;",
	"<!-- --!><script>window.hacked=1</script> -->",
	"<![CDATA[<script>window.hacked=1</script>]]>",
	"<?php window.hacked ?>",
	"[x](//evil.example/path)",
	"http://evil.example/<script>window.hacked=1</script>",
	"\x00<scr\x00ipt>window.hacked=1</script>",
}

// live are the elements and attributes that must never come out of an answer.
var liveMarkup = regexp.MustCompile(`(?i)<(script|style|svg|iframe|img|form|meta|base|link|object|embed|video|audio|math)\b` +
	`|<[^>]*\s(on\w+|style|src|formaction|autofocus|id|name)\s*=|(href|src)="\s*(javascript|data|vbscript):`)

func TestNothingHostileComesThrough(t *testing.T) {
	md := newMarkdown()
	for _, h := range hostile {
		for _, text := range []string{h, "> " + h, "- " + h, "text " + h + " text", "**" + h + "**", "[" + h + "](https://example.com)"} {
			for _, b := range md.blocks(text, nil) {
				if found := liveMarkup.FindString(b); found != "" {
					t.Errorf("%q gives %q in\n%s", text, found, b)
				}
			}
		}
	}
}

func TestMarkdown(t *testing.T) {
	md := newMarkdown()
	sources := []llm.Citation{{Path: "a b.md", Start: 1, End: 9, Line: 3}, {Path: "c.md", Start: 0, End: 4, Line: 1}}
	const rel = `rel="nofollow noreferrer noopener" target="_blank"`
	for _, c := range []struct{ text, want string }{
		{"a <b> c", `<p>a &lt;b&gt; c</p>`},
		{"<div>\nkept\n</div>", "<p>&lt;div&gt;\nkept\n&lt;/div&gt;</p>"},
		{"[x](https://example.com)", `<p><a href="https://example.com" ` + rel + `>x</a></p>`},
		{"https://example.com", `<p><a href="https://example.com" ` + rel + `>https://example.com</a></p>`},
		{"![a cat](https://example.com/cat.png)", `<p><a class="image" href="https://example.com/cat.png" ` + rel + `>a cat</a></p>`},
		{"- [x] done", "<ul>\n<li><input checked=\"\" disabled=\"\" type=\"checkbox\"> done</li>\n</ul>"},
		{"|a|\n|-:|\n|1|", "<table>\n<thead>\n<tr>\n<th align=\"right\">a</th>\n</tr>\n</thead>\n<tbody>\n<tr>\n<td align=\"right\">1</td>\n</tr>\n</tbody>\n</table>"},
		{"```go\nvar x = 1 // y\n```", `<figure class="code"><figcaption>go<button type="button" class="copy">Copy</button></figcaption><pre><code>` +
			`<span class="k">var</span> x = <span class="n">1</span> <span class="c">// y</span>` + "\n</code></pre></figure>"},
		{"see [1], [2] and [3]", `<p>see <sup class="cite"><a class="cite" href="/notes/a%20b.md?from=1&amp;to=9#L3" rel="nofollow noreferrer">1</a></sup>, ` +
			`<sup class="cite"><a class="cite" href="/notes/c.md?from=0&amp;to=4#L1" rel="nofollow noreferrer">2</a></sup> and [3]</p>`},
		{"[x](//example.com)", `<p><a href="//example.com" ` + rel + `>x</a></p>`},
		{"[1](https://example.com)", `<p><a href="https://example.com" ` + rel + `>1</a></p>`},
	} {
		if got := strings.Join(md.blocks(c.text, sources), "|"); got != c.want {
			t.Errorf("%q\n got %s\nwant %s", c.text, got, c.want)
		}
	}
}
