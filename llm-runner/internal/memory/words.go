package memory

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Whose words a text is made of, and what in it is about whom: rules for German and English, so that no model has to be believed.

// sentences returns where the sentences of a text stand.
func sentences(text string) []span {
	var all []span
	from := 0
	for i, r := range text {
		end := r == '\n'
		if r == '.' || r == '!' || r == '?' || r == ';' {
			rest := text[i+1:]
			end = rest == "" || rest[0] == ' ' || rest[0] == '\n'
			if end && r == '.' && i > 0 && unicode.IsDigit(rune(text[i-1])) && len(rest) > 1 && !unicode.IsUpper(rune(rest[1])) { // "am 3. mai"
				end = false
			}
		}
		if end {
			all = append(all, span{from, i + 1})
			from = i + 1
		}
	}
	if from < len(text) {
		all = append(all, span{from, len(text)})
	}
	return slices.DeleteFunc(all, func(s span) bool { return strings.TrimSpace(text[s.from:s.to]) == "" })
}

var (
	fenced    = regexp.MustCompile("(?s)```.*?(?:```|$)")
	quoted    = regexp.MustCompile(`(?m)^[ \t]*>.*$`)
	forwarded = regexp.MustCompile(`(?im)^(?:-{2,} ?(?:forwarded|original|weitergeleitete|ursprüngliche)|(?:from|von|betreff|subject|sent|gesendet): )[\s\S]*`)
	marks     = regexp.MustCompile(`"[^"\n]{2,}"|„[^“”"\n]{2,}[“”"]|“[^”\n]{2,}”|»[^«\n]{2,}«|«[^»\n]{2,}»`)
)

const (
	// work is what one asks to be done with a text, piece what it is done with.
	work = `(?:summari[sz]e|sum up|translate|proof-?read|re-?write|re-?phrase|paraphrase|shorten|improve|correct|edit|review|polish|analy[sz]e|classify|check|fix|answer|reply|respond|explain|` +
		`fass\w*|zusammen(?:ge)?fass\w*|übersetz\w*|korrigier\w*|überarbeit\w*|verbesser\w*|kürz\w*|formulier\w*|analysier\w*|prüf\w*|beantwort\w*|antwort\w*|erklär\w*|lektorier\w*)`
	piece = `(?:e-?mails?|mails?|messages?|letters?|texts?|paragraphs?|articles?|posts?|reviews?|notes?|essays?|story|stories|poems?|transcripts?|conversations?|chats?|threads?|comments?|abstracts?|` +
		`bios?|profiles?|cvs?|résumés?|resumes?|ads?|statements?|sentences?|interviews?|quotes?|passages?|excerpts?|lyrics|nachricht(?:en)?|briefe?s?|textes?|absätze?|absatz|artikel|beiträge?|beitrag|` +
		`kommentare?|geschichten?|gedichte?|protokolle?|gespräche?|anzeigen?|lebensl(?:auf|äufe)|bewerbung(?:en)?|zitate?|sätze?|satz|anschreiben|sms|the following|folgende\w*|dies(?:e[nrsm]?)?|this|das)`
)

var (
	// pasted is a text that one is asked to work on, or that is shown: what follows is another's. After "translate" that is so whatever it is called.
	pasted = regexp.MustCompile(`(?i)(?:(?:^|[^\p{L}])` + work + `(?:[^\n:.!?]{0,80}[^\n:.!?\p{L}])?` + piece + `\b[^\n:]{0,80}(?::|\n)|(?:^|[^\p{L}])(?:translate|übersetz\w*)\b[^\n:]{0,60}(?::|\n)|` +
		`\b(?:here is|here's|here’s|this is|i got|i received|got this|hier ist|das ist|ich (?:habe|hab) (?:heute |gestern |gerade )?(?:diese\w*|eine?n?|folgende\w*)|ich bekam)\b[^\n:.!?]{0,40}\b` + piece + `\b[^\n:.!?]{0,40}(?::|\n))`)
	// above asks for work on what stands before it.
	above = regexp.MustCompile(`(?i)\n[ \t]*\n(?:[^\n]{0,40}?[^\p{L}\n])?` + work + `\b[^\n]{0,80}\b(?:this|that|it|above|das|dies\w*|obige\w*|` + piece + `)\b[^\n]{0,80}\s*$`)
	// letter begins one: a line that greets, and not the first.
	letter = regexp.MustCompile(`(?i)\n[ \t]*(?:hi|hello|hey|dear|hallo|liebe[rs]?|sehr geehrte\w*|guten (?:tag|morgen|abend)|moin|servus)\b[^\n,!]{0,60}[,!][ \t]*\n`)
)

// borrowed returns where a text repeats what others said: what stands in quotation marks, block quotes, fences, forwarded mail, and what is
// pasted to be worked on. A text of one's own that is pasted is passed over too: who wrote it cannot be told.
func borrowed(text string) []span {
	var all []span
	for _, re := range []*regexp.Regexp{fenced, quoted, forwarded, marks} {
		for _, m := range re.FindAllStringIndex(text, -1) {
			if re == marks && !strings.ContainsAny(strings.TrimSpace(text[m[0]:m[1]]), " ") {
				continue // one word: a name
			}
			all = append(all, span{m[0], m[1]})
		}
	}
	for _, re := range []*regexp.Regexp{pasted, letter} {
		if m := re.FindStringIndex(text); m != nil && strings.TrimSpace(text[m[1]:]) != "" {
			all = append(all, span{m[1], len(text)})
		}
	}
	if m := above.FindStringIndex(text); m != nil {
		all = append(all, span{0, m[0]})
	}
	return joined(all)
}

// wordsIn are the words of a text, in lower case.
func wordsIn(text string) []string {
	return strings.FieldsFunc(strings.ToLower(norm.NFC.String(text)), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '\'' && r != '’' })
}

func set(words string) map[string]bool {
	all := map[string]bool{}
	for _, w := range strings.Fields(words) {
		all[w] = true
	}
	return all
}

var (
	speaks = set(`i i'm i've i'd i'll i’m i’ve i’d i’ll im ive me my mine myself we we're we've we’re we’ve us our ours ourselves
		ich mich mir mein meine meinen meinem meiner meines wir uns unser unsere unseren unserem unserer remember merk merke notiere`)
	acts = set(`i i'm i've i'd i'll i’m i’ve i’d i’ll im ive we we're we've we’re we’ve ich wir me mich mir us uns remember merk merke`)
	owns = set(`my our mein meine meinen meinem meiner meines unser unsere unseren unserem unserer`)
	// them are people that are not the person.
	them = set(`brother brothers sister sisters mother mum mom father dad parents son sons daughter daughters wife husband partner girlfriend boyfriend
		friend friends neighbour neighbours neighbor neighbors boss colleague colleagues uncle aunt cousin cousins grandmother grandfather grandma grandpa
		nephew niece kid kids child children landlord doctor dentist teacher manager coworker flatmate roommate ex fiance fiancee customer client
		bruder brüder schwester schwestern mutter mama vater papa eltern sohn söhne tochter töchter frau mann partnerin freund freundin freunde
		nachbar nachbarin nachbarn chef chefin kollege kollegin kollegen onkel tante cousine oma opa großmutter großvater neffe nichte kind kinder
		vermieter arzt ärztin zahnarzt zahnärztin lehrer lehrerin mitbewohner mitbewohnerin verlobte verlobter kunde kundin schwager schwägerin`)
	third = set(`he she they his her their er sie ihr sein seine`)

	// reports open a sentence about what somebody else does: "I think my brother ...".
	reports = regexp.MustCompile(`(?i)^\W*(?:(?:i|we)(?:'ve|’ve| have)? (?:think|believe|know|guess|heard|hear|hope|said|told \w+|mentioned|learned|found out|wonder|remember)(?: that| if| whether)?|` +
		`(?:ich|wir) (?:glaube|glauben|denke|denken|weiß|wissen|hörte|hoffe|meine|vermute|frage mich|habe gehört|habe erfahren|habe gesagt)(?:,? (?:dass|ob))?|` +
		`(?:ich|wir) (?:habe|haben) (?:gehört|erfahren|gesagt),? dass)[ ,]+`)
	trails  = regexp.MustCompile(`(?i),\s*(?:i|ich)\s+(?:think|believe|guess|suppose|hear|heard|glaube|denke|vermute|hoffe)\W*$`)
	clauses = regexp.MustCompile(`(?i)[,:–—]\s+|\s+(?:and|but|while|whereas|because|who|which|und|aber|während|weil|sondern|der|die|das)\s+`)
)

func has(words []string, which map[string]bool) bool {
	return slices.ContainsFunc(words, func(w string) bool { return which[w] })
}

// personal says that in a text somebody speaks of themselves.
func personal(text string) bool { return has(wordsIn(text), speaks) }

// ofOthers says that a clause is about somebody else: "my brother lives in Rome", "she likes tea".
func ofOthers(clause string) bool {
	clause = trails.ReplaceAllString(reports.ReplaceAllString(clause, ""), "")
	words := wordsIn(clause)
	if has(words, acts) {
		return false
	}
	for i, w := range words {
		if owns[w] {
			for _, next := range words[i+1 : min(len(words), i+4)] {
				if them[next] {
					return true
				}
			}
		}
	}
	return len(words) > 0 && (third[words[0]] || !has(words, speaks) && has(words, third))
}

// mistaken says that a fact whose quote is the bytes [from, to) of a sentence is about somebody else: so is what is quoted, or what
// the fact names is said of somebody else.
func mistaken(fact, sentence string, from, to int) bool {
	body := span{0, len(sentence)}
	if m := reports.FindStringIndex(sentence); m != nil {
		body.from = m[1]
	}
	if m := trails.FindStringIndex(sentence); m != nil && m[0] > body.from {
		body.to = m[0]
	}
	var mine, others []string
	theirs, quoted := 0, 0
	at := body.from
	clause := func(end int) {
		text := sentence[at:end]
		other := ofOthers(text)
		if other {
			others = append(others, wordsIn(text)...)
		} else {
			mine = append(mine, wordsIn(text)...)
		}
		if strings.TrimSpace(text) != "" && (span{at, end}).meets(from, to) {
			quoted++
			if other {
				theirs++
			}
		}
	}
	for _, m := range clauses.FindAllStringIndex(sentence[body.from:body.to], -1) {
		clause(body.from + m[0])
		at = body.from + m[1]
	}
	clause(body.to)
	if quoted > 0 && theirs == quoted {
		return true
	}
	return slices.ContainsFunc(names(fact), func(n string) bool { return supported(n, others) && !supported(n, mine) })
}

// names are the words of a fact that must stand in what it rests on: those with a capital letter, but for the first, and numbers.
func names(text string) []string {
	var all []string
	for i, w := range strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		first := []rune(w)[0]
		if lower := strings.ToLower(w); unicode.IsDigit(first) || unicode.IsUpper(first) && i > 0 && !subject[lower] {
			all = append(all, strings.ToLower(norm.NFC.String(w)))
		}
	}
	return all
}

// subject are the words for the person in a fact.
var subject = set(`the user user's users der die des dem den nutzer nutzerin nutzers benutzer person i`)

// supported says that a word stands among others, or one like it: of German words the first letters are enough.
func supported(w string, among []string) bool {
	return slices.ContainsFunc(among, func(x string) bool {
		if x == w {
			return true
		}
		if countDigits(w) > 0 {
			return false
		}
		a, b := []rune(w), []rune(x)
		n := 0
		for n < len(a) && n < len(b) && a[n] == b[n] {
			n++
		}
		return n >= 4 || len(a) > 2 && n == len(a) && len(b) <= len(a)+2 || len(b) > 2 && n == len(b) && len(a) <= len(b)+2
	})
}

// grounded says that what a fact names stands in the message it is said to come from.
func grounded(text, message string) bool {
	among := wordsIn(message)
	return !slices.ContainsFunc(names(text), func(n string) bool { return !supported(n, among) })
}

var corrects = regexp.MustCompile(`(?i)\b(?:no longer|not any ?more|anymore|moved|instead|actually|correction|changed|switched|used to|quit|stopped|since (?:last|this|january|february|march|april|may|june|july|august|` +
	`september|october|november|december|20\d\d)|now|nicht mehr|kein\w* mehr|umgezogen|stattdessen|sondern|inzwischen|mittlerweile|seit|jetzt|nun|doch nicht|gewechselt|aufgehört|korrektur|früher|nicht länger)\b`)

// correction says that a text takes back what was said before.
func correction(text string) bool { return corrects.MatchString(text) }

// stop are words that say nothing about what a fact is about.
var stop = set(`the user user's a an is are was has have had be been of in at on to for with and or that this it its as by from his her their he she they
	nutzer nutzerin nutzers benutzer der die das des dem den ein eine einen einem einer ist sind war hat haben in im am an auf zu für mit und oder
	dass es als von vom bei sich er sie ihr sein seine person i my me ich mein meine mir mich not no nicht kein keine very sehr really also auch
	which what when where who how why do does did can could should would will there here now get gets go goes take takes make makes give tell know help please
	welche welcher welches was wann wo wer wie warum kann kannst soll sollte gibt gib mach mache bitte da hier jetzt wenn dann`)

// normal is a fact as it is compared: its words without those for the person.
func normal(text string) string {
	words := wordsIn(text)
	for len(words) > 1 && subject[words[0]] {
		words = words[1:]
	}
	return strings.Join(words, " ")
}

// topics are what a text is about: its words without those that say nothing, each cut to its beginning.
func topics(text string) map[string]bool {
	all := map[string]bool{}
	for _, w := range wordsIn(text) {
		if stop[w] {
			continue
		}
		all[beginning(w)] = true
	}
	return all
}

// beginning is what the forms of a word have in common, roughly, in German and English: "live" and "living", "wohne" and "wohnst". Words that
// only look alike are told apart by whoever compares the facts.
func beginning(word string) string {
	r := []rune(word)
	r = r[:min(len(r), 6)]
	for len(r) > 3 && strings.ContainsRune("aeginst", r[len(r)-1]) {
		r = r[:len(r)-1]
	}
	return string(r)
}

// likeness is how much two sets have in common: 0 to 1.
func likeness(a, b map[string]bool) float64 {
	both := 0
	for w := range a {
		if b[w] {
			both++
		}
	}
	if both == 0 {
		return 0
	}
	return float64(both) / float64(min(len(a), len(b)))
}
