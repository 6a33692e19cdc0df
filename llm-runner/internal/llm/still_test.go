package llm

import "testing"

func TestANoteLoadsNothingFromElsewhere(t *testing.T) {
	for text, want := range map[string]string{
		"![a](https://evil.example/?d=x)":                          "[a](https://evil.example/?d=x)",
		"Hm!![a](https://evil.example/)":                           "Hm[a](https://evil.example/)",
		`\![a](https://evil.example/)`:                             `\[a](https://evil.example/)`,
		"![a][1]\n\n[1]: https://evil.example/":                    "[a][1]\n\n[1]: https://evil.example/",
		"![[a]](https://evil.example/)":                            "[[a]](https://evil.example/)",
		`x <img src="https://evil.example/">`:                      `x &lt;img src="https://evil.example/">`,
		"x <IMG\nsrc=//evil.example>":                              "x &lt;IMG\nsrc=//evil.example>",
		"<style>@import 'https://evil.example'</style>":            "&lt;style>@import 'https://evil.example'&lt;/style>",
		"- <div>\n```\n\n![a](https://evil.example/)\n":            "- &lt;div>\n```\n\n![a](https://evil.example/)\n", // it is in a block of code
		"<div>\n```\n\n![a](https://evil.example/)\n":              "&lt;div>\n```\n\n![a](https://evil.example/)\n",
		"- ```\n  x\n\n![a](https://evil.example/)\n":              "- ```\n  x\n\n[a](https://evil.example/)\n",
		"$$\n```\n$$\n![a](https://evil.example/)\n```\n":          "$$\n```\n$$\n[a](https://evil.example/)\n```\n",
		"%%\n```\n%%\n![a](https://evil.example/)\n```\n":          "%%\n```\n%%\n[a](https://evil.example/)\n```\n",
		"```html\n<img src=\"https://a.example\">\n```\n![a](u)":   "```html\n<img src=\"https://a.example\">\n```\n[a](u)",
		"``` a`b\n![a](u)":                                         "``` a`b\n[a](u)",
		"~~~\n![a](u)\n```\n![a](u)\n~~~~\n![a](u)":                "~~~\n![a](u)\n```\n![a](u)\n~~~~\n[a](u)",
		"A `List<String>`, 1 < 2, a <- b, <https://a.example> <3!": "A `List<String>`, 1 < 2, a <- b, <https://a.example> <3!",
		"```\n   ```\n![a](u)\n```":                                "```\n   ```\n[a](u)\n```", // three blanks in, a fence still ends the block
		"```\n\t```\n![a](u)\n```":                                 "```\n\t```\n[a](u)\n```",
		"[a](https://good.example/), see [[garden]].":              "[a](https://good.example/), see [[garden]].",
	} {
		if got := Still(text); got != want {
			t.Errorf("%q is %q, not %q", text, got, want)
		}
	}
}
