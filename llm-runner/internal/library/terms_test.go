package library

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// SQLite has the same stemmer, so it is asked.
func TestEnglishStemsArePorters(t *testing.T) {
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
			if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) { // newer signs are letters to it, as its tables are older
				want = append(want, s)
			}
		}
		rows.Close()
		got := tokens(text, english)
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

// words4000 returns texts to compare stemmers on: the handbook, and words with every suffix that a stemmer knows.
func words4000(t *testing.T) map[string]string {
	texts := map[string]string{}
	files, _ := filepath.Glob("../../../docs/*.md")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(f)] = strings.ReplaceAll(string(b), "ß", "ss") // two letters here, one to SQLite
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
	return texts
}

func TestGermanStemsAreSnowballs(t *testing.T) {
	for _, tt := range []struct{ words, stem string }{
		{"Häuser", "haus"},
		{"Haus", "haus"},
		{"Hauses", "haus"},
		{"Häusern", "haus"},
		{"Katze", "katz"},
		{"Katzen", "katz"},
		{"Kätzchen", "katzch"},
		{"aufeinander", "aufeinand"},
		{"aufeinanderfolge", "aufeinanderfolg"},
		{"aufeinanderfolgend", "aufeinanderfolg"},
		{"aufenthalt", "aufenthalt"},
		{"aufenthalten", "aufenthalt"},
		{"kategorie", "kategori"},
		{"kategorien", "kategori"},
		{"kategorisch", "kategor"},
		{"Straße", "strass"},
		{"Straßen", "strass"},
		{"Größe", "gross"},
		{"größer", "gross"},
		{"größten", "grosst"},
		{"Bedeutung", "bedeut"},
		{"Bedeutungen", "bedeut"},
		{"bedeutend", "bedeut"},
		{"Freiheit", "freiheit"},
		{"Freiheiten", "freiheit"},
		{"Möglichkeit", "moglich"},
		{"Möglichkeiten", "moglich"},
		{"möglich", "moglich"},
		{"freundlich", "freundlich"},
		{"freundlicher", "freundlich"},
		{"Freundlichkeit", "freundlich"},
		{"Übungen", "ubung"},
		{"Übung", "ubung"},
		{"geübt", "geubt"},
		{"Wohnung", "wohnung"},
		{"Wohnungen", "wohnung"},
		{"Rechnung", "rechnung"},
		{"Rechnungen", "rechnung"},
		{"Zeugnis", "zeugnis"},
		{"Zeugnisse", "zeugnis"},
		{"Zeugnisses", "zeugnis"},
		{"laufen", "lauf"},
		{"läuft", "lauft"},
		{"lief", "lief"},
		{"gelaufen", "gelauf"},
		{"Läufer", "lauf"},
		{"Datensicherung", "datensicher"},
		{"Datensicherungen", "datensicher"},
		{"Sicherung", "sicher"},
		{"Kühlschrank", "kuhlschrank"},
		{"Kühlschränke", "kuhlschrank"},
		{"Garten", "gart"},
		{"Gärten", "gart"},
		{"Gartens", "gart"},
		{"gärtnerisch", "gartner"},
		{"ewigkeit", "ewig"},
		{"einigung", "einig"},
		{"selig", "selig"},
		{"steinig", "steinig"},
		{"Musik", "musik"},
		{"Physik", "physik"},
		{"physikalisch", "physikal"},
		{"praktisch", "praktisch"},
		{"neuesten", "neu"},
		{"ältesten", "alt"},
		{"Bäume", "baum"},
		{"Baum", "baum"},
		{"Filter", "filt"},
		{"Filters", "filt"},
		{"Wärmepumpe", "warmepump"},
		{"Wärmepumpen", "warmepump"},
		{"Schlüssel", "schlussel"},
		{"Schlüsseln", "schlussel"},
		{"Rezepte", "rezept"},
		{"Rezept", "rezept"},
		{"Rezepten", "rezept"},
		{"arbeiten", "arbeit"},
		{"arbeitest", "arbeit"},
		{"arbeitete", "arbeitet"},
		{"Arbeit", "arbeit"},
		{"Arbeiter", "arbeit"},
		{"Arbeiterin", "arbeit"},
		{"ging", "ging"},
		{"gehst", "gehst"},
		{"kommst", "komm"},
		{"kommen", "komm"},
		{"schönste", "schon"},
		{"schönes", "schon"},
		{"bester", "best"},
		{"besten", "best"},
		// With umlauts written as two letters too, as Snowball's german2 has it.
		{"Größe Groesse GRÖSSE grosse", "gross"},
		{"Häuser Haeuser Haus Hauses", "haus"},
		{"für fuer", "fur"},
		{"teuer", "teu"}, {"Tür Tuer Türen", "tur"}, {"Mauer", "mau"}, {"neue neuer", "neu"}, {"Quelle Quellen", "quell"},
		{"ab der es", "="},
	} {
		for _, w := range strings.Fields(tt.words) {
			want := tt.stem
			if want == "=" {
				want = w
			}
			if got := german.stem(foldWord(w)); got != want+germanMark {
				t.Errorf("%s becomes %q, want %q", w, got, want)
			}
		}
	}
}

func TestLettersAreFolded(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"Zu\u0308rich und Zürich", "zurich und zurich"},
		{"naïve café ÅNGSTRÖM Ōsaka ẞ ß", "naive cafe angstrom osaka ss ss"},
		{"don't e-mail x_y 3.14 C++", "don t e mail x y 3 14 c"},
		{"Ἀθήνα Москва 日本語", "ἀθήνα москва 日本語"},
	} {
		var got []string
		for _, x := range wordsOf(tt.text) {
			got = append(got, x.word)
		}
		if g := strings.Join(got, " "); g != tt.want {
			t.Errorf("%q becomes %q, want %q", tt.text, g, tt.want)
		}
	}
}

func TestTheLanguageOfANoteIsToldByItsStopWords(t *testing.T) {
	for _, tt := range []struct {
		text string
		want language
	}{
		{"Der Filter der Wärmepumpe wird im Frühling gewaschen.", german},
		{"The filter of the heat pump is washed every spring.", english},
		{"Die Zeit, in der wir leben: the quick brown fox.", german},
		{"restic prune", english},
		{"", english},
	} {
		if got := languageOf(tt.text); got != tt.want {
			t.Errorf("%q is taken for %d", tt.text, got)
		}
	}
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
	for _, words := range []map[string]bool{englishStops, germanStops} {
		for w := range words {
			if fold(w) != w {
				t.Errorf("the stop word %q is not folded", w)
			}
		}
	}
}

func FuzzTokens(f *testing.F) {
	f.Add([]byte("Grüße an\u0308 the world's 3 bears, ran running. \xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, l := range []language{english, german} {
			last := 0
			for _, x := range tokens(string(b), l) {
				if x.start < last || x.end <= x.start || x.end > len(b) || x.word == "" && bytes.IndexFunc(b[x.start:x.end], wordRune) >= 0 {
					t.Fatalf("token %+v of %q", x, b)
				}
				if x.word != "" && (x.stem == "" || x.stem[0] != x.word[0]) {
					t.Fatalf("stemming changes the beginning of %q to %q", x.word, x.stem)
				}
				last = x.end
			}
		}
	})
}
