package vault

import "strings"

// front splits the frontmatter off a note, with its fences; "" there is none.
func front(text string) (block, rest string) {
	if !strings.HasPrefix(text, "---\n") && !strings.HasPrefix(text, "---\r\n") {
		return "", text
	}
	at := strings.IndexByte(text, '\n') + 1
	for at < len(text) {
		end := strings.IndexByte(text[at:], '\n')
		line, next := text[at:], len(text)
		if end >= 0 {
			line, next = text[at:at+end], at+end+1
		}
		if strings.TrimRight(line, " \t\r") == "---" {
			return text[:next], text[next:]
		}
		at = next
	}
	return "", text
}

// preserve returns a new text of a note with the frontmatter of the old one: all of it where the new text has none, else the keys
// that it does not have itself, as they were written.
func preserve(old, text string) string {
	had, _ := front(old)
	has, body := front(text)
	switch {
	case had == "":
		return text
	case has == "":
		return ending(had) + strings.TrimLeft(text, "\n")
	}
	fresh := map[string]bool{}
	for _, e := range entries(has) {
		fresh[e.key] = true
	}
	var missing strings.Builder
	for _, e := range entries(had) {
		if e.key != "" && !fresh[e.key] {
			missing.WriteString(ending(e.text))
		}
	}
	if missing.Len() == 0 {
		return text
	}
	lines := strings.SplitAfterN(has, "\n", 2)
	return lines[0] + missing.String() + lines[1] + body
}

func ending(s string) string {
	if strings.HasSuffix(s, "\n") {
		return s
	}
	return s + "\n"
}

// An item is a top-level key with all lines that belong to it.
type item struct{ key, text string }

// entries splits frontmatter into its top-level keys; lines before the first one have the key "".
func entries(block string) []item {
	var all []item
	lines := strings.SplitAfter(block, "\n")
	for i, line := range lines {
		bare := strings.TrimRight(line, " \t\r\n")
		if i == 0 || bare == "---" || line == "" {
			continue
		}
		key, _, ok := strings.Cut(bare, ":")
		if top := ok && line[0] != ' ' && line[0] != '\t' && line[0] != '-' && line[0] != '#'; top {
			all = append(all, item{key: strings.Trim(key, `"' `), text: line})
		} else if len(all) > 0 {
			all[len(all)-1].text += line
		} else {
			all = append(all, item{text: line})
		}
	}
	return all
}
