package library

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// A token is one word of a text, as the index holds it.
type token struct {
	start, end int    // bytes of the text, half-open
	word       string // folded: lower case, without diacritics
	stem       string
}

// tokens returns the words of text, which is in language l, in order.
func tokens(text string, l language) []token {
	all := wordsOf(text)
	for i := range all {
		all[i].stem = l.stem(all[i].word)
	}
	return all
}

// tokensLike returns the words of text in order, but stems only those that can be like one of stems: stemming never changes
// the first byte, and is most of the work. The other words have the stem "".
func tokensLike[T any](text string, l language, stems map[string]T) []token {
	var first [256]bool
	for s := range stems {
		first[s[0]] = true
	}
	all := wordsOf(text)
	for i, t := range all {
		if t.word != "" && first[t.word[0]] {
			all[i].stem = l.stem(t.word)
		}
	}
	return all
}

// wordsOf returns the words of text without their stems.
func wordsOf(text string) []token {
	all := make([]token, 0, len(text)/6+1)
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
	var b strings.Builder
	for _, r := range s {
		switch base, ok := bases[r]; {
		case r >= 'A' && r <= 'Z':
			b.WriteByte(byte(r) + 'a' - 'A')
		case r < utf8.RuneSelf:
			b.WriteByte(byte(r))
		case r >= 0x300 && r <= 0x36f:
		case r == 'ß' || r == 'ẞ':
			b.WriteString("ss")
		case ok:
			b.WriteRune(base)
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// bases maps letters with diacritics to those without.
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
	for i, t := range wordsOf(withoutExt(strings.TrimSpace(name))) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.word)
	}
	return b.String()
}

// content returns the words of a question that carry meaning: those that are not stop words of its language, nor tell after "how" what
// is measured ("how large", "wie oft"); or all where none is left ("The Who").
func content(text string) []token {
	all := wordsOf(text)
	var kept []token
	for i, t := range all {
		measure := i > 0 && (all[i-1].word == "how" || all[i-1].word == "wie") && measures[t.word]
		if !isStop(t.word) && !measure {
			kept = append(kept, t)
		}
	}
	if len(kept) == 0 {
		return all
	}
	return kept
}

var measures = set(`large big long much many often high old tall far deep wide heavy fast expensive soon late
	gross hoch oft lang lange viel viele weit alt tief breit schwer schnell teuer spat lautet heisst`)
