package library

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What Go takes for the words and stems of a text must be what SQLite's index holds of it, or answers would be trimmed and
// marked by other words than those that were found.
func TestTokensAreThoseOfTheIndex(t *testing.T) {
	h, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	h.SetMaxOpenConns(1)
	for _, q := range []string{
		`CREATE VIRTUAL TABLE f USING fts5(b, tokenize='porter unicode61 remove_diacritics 2')`,
		`CREATE VIRTUAL TABLE v USING fts5vocab(f, instance)`,
	} {
		if _, err := h.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range words4000(t) {
		if _, err := h.Exec(`DELETE FROM f`); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Exec(`INSERT INTO f VALUES (?)`, text); err != nil {
			t.Fatal(err)
		}
		rows, err := h.Query(`SELECT term FROM v ORDER BY offset`)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			want = append(want, s)
		}
		rows.Close()
		got := tokens(text)
		if len(got) != len(want) {
			t.Errorf("%s: %d tokens, the index has %d", name, len(got), len(want))
		}
		wrong := 0
		for i := range min(len(got), len(want)) {
			if got[i].stem != want[i] && wrong < 10 {
				wrong++
				t.Errorf("%s: %q becomes %q, in the index %q", name, text[got[i].start:got[i].end], got[i].stem, want[i])
			}
		}
	}
}

// words4000 returns texts to compare tokenizers on: the handbook, words with every suffix that a stemmer knows, and letters
// of other alphabets.
func words4000(t *testing.T) map[string]string {
	texts := map[string]string{}
	files, _ := filepath.Glob("../../../docs/*.md")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(f)] = string(b)
	}
	var b strings.Builder
	suffixes := strings.Fields(`s es ies sses ss ed eed ing ational tional enci anci izer logi bli alli entli eli ousli ization ation ator
		alism iveness fulness ousness aliti iviti biliti icate ative alize iciti ical ful ness al ance ence er ic able ible ant ement ment ent
		ion sion tion ou ism ate iti ous ive ize e ll y ying ly ology ied`)
	for _, base := range strings.Fields(`a b t tr at by oat tree trouble oat ivy private orr hop tann fall hiss fizz fail fil happ sky relat condition
		rat valenc hesit digit conform radical different vile analog vietnam predicat operat feudal decisive hopeful callous formal sensitiv
		triplic form electric hope good reviv allow infer airlin gyroscop adjust defens irrit replac adapt communis activat angular homolog
		effect bowdler prob cease controll roll yes xyz queue rhythm`) {
		b.WriteString(base + " ")
		for _, s := range suffixes {
			b.WriteString(base + s + " ")
		}
	}
	texts["suffixes"] = b.String()
	b.Reset()
	for r := rune(0x21); r < 0x524; r++ {
		if r != 0x37f && (wordRune(r) || r < 0x300) { // U+037F is younger than SQLite's table
			b.WriteString("x" + string(r) + "y ")
		}
	}
	for r := rune(0x1e00); r < 0x1f00; r++ {
		b.WriteString("x" + string(r) + "y ")
	}
	texts["letters"] = b.String()
	texts["marks"] = "Zu\u0308rich und Zürich, naïve café ÅNGSTRÖM don't e-mail x_y 3.14 C++ Ἀθήνα Москва straße " + strings.Repeat("longing", 12) + " 日本語"
	return texts
}

func TestQuestionsLoseTheirStopWords(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"What happens when davas is down?", []string{"davas", "down"}},
		{"Wo werden meine Daten aufbewahrt?", []string{"daten", "aufbewahrt"}},
		{"Für wen ist das?", []string{"wen"}},
		{"The Who", []string{"the", "who"}},
		{"what's up", []string{"up"}},
		{"", nil},
		{"?!", nil},
	} {
		var got []string
		for _, x := range content(tt.text) {
			got = append(got, x.word)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
	for w := range stopWords {
		if fold(w) != w {
			t.Errorf("the stop word %q is not folded", w)
		}
	}
}

func FuzzTokens(f *testing.F) {
	f.Add([]byte("Grüße an\u0308 the world's 3 bears, ran running. \xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		last := 0
		for _, x := range tokens(string(b)) {
			if x.start < last || x.end <= x.start || x.end > len(b) || x.word == "" && bytes.IndexFunc(b[x.start:x.end], wordRune) >= 0 {
				t.Fatalf("token %+v of %q", x, b)
			}
			if x.word != "" && (x.stem == "" || x.stem[0] != x.word[0]) {
				t.Fatalf("stemming changes the beginning of %q to %q", x.word, x.stem)
			}
			last = x.end
		}
	})
}
