package library

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// A token is one word of a text, taken apart as the index takes it apart (FTS5: porter over unicode61 with
// remove_diacritics 2), so that Go and SQLite agree on what matches.
type token struct {
	start, end int    // bytes of the text, half-open
	word       string // folded: lower case, without diacritics
	stem       string
}

// tokens returns the words of text in order.
func tokens(text string) []token {
	all := wordsOf(text)
	for i := range all {
		all[i].stem = stem(all[i].word)
	}
	return all
}

// tokensLike returns the words of text in order, but stems only those that can be like one of stems: stemming never changes
// the first byte, and is most of the work. The other words have the stem "".
func tokensLike(text string, stems map[string]float64) []token {
	var first [256]bool
	for s := range stems {
		first[s[0]] = true
	}
	all := wordsOf(text)
	for i, t := range all {
		if t.word != "" && first[t.word[0]] {
			all[i].stem = stem(t.word)
		}
	}
	return all
}

// wordsOf returns the words of text without their stems.
func wordsOf(text string) []token {
	var all []token
	start := -1
	flush := func(end int) {
		if start >= 0 {
			all = append(all, token{start: start, end: end, word: foldWord(text[start:end])})
			start = -1
		}
	}
	for i, r := range text {
		switch {
		case wordRune(r):
			if start < 0 {
				start = i
			}
		case start >= 0 && r >= 0x300 && r <= 0x36f: // a combining accent belongs to its letter
		default:
			flush(i)
		}
	}
	flush(len(text))
	return all
}

func wordRune(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	}
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsNumber(r))
}

func foldWord(s string) string {
	plain := true
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= utf8.RuneSelf || c >= 'A' && c <= 'Z' {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r < utf8.RuneSelf:
			if r >= 'A' && r <= 'Z' {
				r += 'a' - 'A'
			}
			return r
		case r >= 0x300 && r <= 0x36f:
			return -1
		}
		if base, ok := bases[r]; ok {
			return base
		}
		return unicode.ToLower(r)
	}, s)
}

// bases maps letters with diacritics to those without, as SQLite's unicode61 does.
var bases = func() map[rune]rune {
	m := map[rune]rune{}
	for _, row := range []string{
		"aÀÁÂÃÄÅàáâãäåĀāĂăĄąǍǎǞǟǺǻȀȁȂȃȦȧḀḁẠạẢảẤấẦầẨẩẪẫẬậẮắẰằẲẳẴẵẶặ\u212b", "bḂḃḄḅḆḇ", "cÇçĆćĈĉĊċČčḈḉ", "dĎďḊḋḌḍḎḏḐḑḒḓ",
		"eÈÉÊËèéêëĒēĔĕĖėĘęĚěȄȅȆȇȨȩḔḕḖḗḘḙḚḛḜḝẸẹẺẻẼẽẾếỀềỂểỄễỆệ", "fḞḟ", "gĜĝĞğĠġĢģǦǧǴǵḠḡ", "hĤĥȞȟḢḣḤḥḦḧḨḩḪḫẖ",
		"iÌÍÎÏìíîïĨĩĪīĬĭĮįǏǐȈȉȊȋḬḭḮḯỈỉỊị", "jĴĵǰ", "k\u212aĶķǨǩḰḱḲḳḴḵ", "lĹĺĻļĽľḶḷḸḹḺḻḼḽ", "mḾḿṀṁṂṃ", "nÑñŃńŅņŇňǸǹṄṅṆṇṈṉṊṋ",
		"oÒÓÔÕÖòóôõöŌōŎŏŐőƠơǑǒǪǫǬǭȌȍȎȏȪȫȬȭȮȯȰȱṌṍṎṏṐṑṒṓỌọỎỏỐốỒồỔổỖỗỘộỚớỜờỞởỠỡỢợ", "pṔṕṖṗ", "rŔŕŖŗŘřȐȑȒȓṘṙṚṛṜṝṞṟ",
		"sŚśŜŝŞşŠšſȘșṠṡṢṣṤṥṦṧṨṩẛ", "tŢţŤťȚțṪṫṬṭṮṯṰṱẗ", "uÙÚÛÜùúûüŨũŪūŬŭŮůŰűŲųƯưǓǔǕǖǗǘǙǚǛǜȔȕȖȗṲṳṴṵṶṷṸṹṺṻỤụỦủỨứỪừỬửỮữỰự", "vṼṽṾṿ",
		"wŴŵẀẁẂẃẄẅẆẇẈẉẘ", "xẊẋẌẍ", "yÝýÿŶŷŸȲȳẎẏẙỲỳỴỵỶỷỸỹ", "zŹźŻżŽžẐẑẒẓẔẕ", "βϐ", "εϵ", "θϑ", "ι\u1fbe", "κϰ", "μµ", "πϖ", "ρϱ", "σς", "φϕ",
	} {
		rs := []rune(row)
		for _, r := range rs[1:] {
			m[r] = rs[0]
		}
	}
	return m
}()

// fold brings a name into the form in which names are compared: its folded words with a space between, without the
// ending .md.
func fold(name string) string {
	var b strings.Builder
	for i, t := range tokens(withoutExt(strings.TrimSpace(name))) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.word)
	}
	return b.String()
}

// content returns the words of a question that carry meaning: those that are not stop words, or all where none is left
// ("The Who").
func content(text string) []token {
	all := tokens(text)
	var kept []token
	for _, t := range all {
		if !stopWords[t.word] {
			kept = append(kept, t)
		}
	}
	if len(kept) == 0 {
		return all
	}
	return kept
}

// stopWords are English and German words that say nothing of what is sought, folded; also the letters that remain of
// "what's" and "don't", and the verbs with which people phrase questions. They are dropped from questions only: the index
// holds every word. Dropping them costs nothing in ranking and makes questions three to four times faster.
var stopWords = func() map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(`
		a about again all also am an and any anyone are as at be because been being but by can cannot could d did didn do does doesn doing don
		done each else ever every for from get gets give go goes got had happen happened happening happens has have having he her here hers
		him his how i if in into is isn it its itself just know let like ll m make may me mean means might mine more most much must my
		no nor not of off on once one only or our ours out please re s shall she should so some such t tell than that the their them then
		there these they thing things this those to too us ve very want was wasn we were what when where whether which while who whom whose
		why will with without won would yes you your yours explain describe show something anything
		aber alle allem allen aller alles als also am an ander andere auch auf aus bei beim bin bis bist bitte da damit dann das dass dein
		deine dem den denn der des deshalb die dies diese diesem diesen dieser dieses doch dort du durch ein eine einem einen einer eines
		er es etwas euch euer fur gegen gab geht gibt habe haben hast hat hatte hier hin ich ihm ihn ihr ihre im immer in ins ist ja jede
		jedem jeden jeder jedes kann kannst kein keine konnen machen mache macht man mein meine meinem meinen meiner mich mir mit muss nach
		nicht nichts noch nun nur ob oder ohne passiert sag sage sehr sein seine sich sie sind so soll sollte sondern uber um und uns unser
		unsere unter use using vom von vor war waren warum was welche welchem welchen welcher welches wenn wer werden wie wieder wird wirst wo
		wohin woher wurde wurden zu zum zur zwischen`) {
		m[w] = true
	}
	return m
}()
