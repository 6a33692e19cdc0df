// Package image makes container images of static programs without Docker: the last word of what an image holds is its Dockerfile, of which
// this package understands what an image from scratch needs, so that docker buildx and homelab image make the same. An image of the same
// files is the same bytes, and so has the same digest, wherever it is made.
package image

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Recipe is a Dockerfile of one stage from scratch, for one platform.
type Recipe struct {
	Copies     []Copy
	User       string            // "1000:1000"
	Env        []string          // NAME=value
	Labels     map[string]string //
	Ports      []string          // "8080/tcp"
	WorkDir    string
	Entrypoint []string
	Cmd        []string
}

// A Copy puts a file, or what is in a folder, of the context into the image.
type Copy struct {
	From, To string
	Mode     int64 // of files and of the folder itself; -1: as they are
	UID, GID int
}

// ReadDockerfile reads a Dockerfile. args are the values of ARG: TARGETARCH and TARGETOS among them, as BuildKit sets them. What an image
// from scratch has no need of, RUN above all, is an error.
func ReadDockerfile(text string, args map[string]string) (Recipe, error) {
	r := Recipe{Labels: map[string]string{}}
	known := map[string]string{}
	started := false
	for _, line := range logical(text) {
		word, rest, _ := strings.Cut(line.text, " ")
		rest = strings.TrimSpace(rest)
		fault := func(format string, a ...any) error {
			return fmt.Errorf("read Dockerfile: line %d: %s", line.number, fmt.Sprintf(format, a...))
		}
		word = strings.ToUpper(word)
		if word == "ARG" {
			name, value, _ := strings.Cut(rest, "=")
			if v, ok := args[name]; ok {
				value = v
			}
			known[name] = value
			continue
		}
		var unknown string
		rest = expand(rest, known, &unknown)
		if unknown != "" {
			return r, fault("$%s is no ARG above", unknown)
		}
		if !started && word != "FROM" {
			return r, fault("%s stands before FROM", word)
		}
		var err error
		switch word {
		case "FROM":
			if rest != "scratch" || started {
				return r, fault("only one stage FROM scratch is understood, not %q: build the program before", rest)
			}
			started = true
		case "COPY":
			var c Copy
			if c, err = readCopy(rest); err == nil {
				r.Copies = append(r.Copies, c)
			}
		case "USER":
			r.User = rest
		case "WORKDIR":
			r.WorkDir = rest
		case "EXPOSE":
			for port := range strings.FieldsSeq(rest) {
				if !strings.Contains(port, "/") {
					port += "/tcp"
				}
				r.Ports = append(r.Ports, port)
			}
		case "ENV", "LABEL":
			name, value, ok := strings.Cut(rest, "=")
			if !ok || strings.ContainsAny(name, " \t") {
				return r, fault("write %s NAME=value, one to a line", word)
			}
			if v, err := strconv.Unquote(value); err == nil {
				value = v
			}
			if word == "ENV" {
				r.Env = append(r.Env, name+"="+value)
			} else {
				r.Labels[name] = value
			}
		case "ENTRYPOINT":
			err = json.Unmarshal([]byte(rest), &r.Entrypoint)
		case "CMD":
			err = json.Unmarshal([]byte(rest), &r.Cmd)
		default:
			return r, fault("%s is not understood: an image from scratch has no need of it", word)
		}
		if err != nil {
			return r, fault("%s %s: %v", word, rest, err)
		}
	}
	if !started || len(r.Copies) == 0 || len(r.Entrypoint) == 0 {
		return r, fmt.Errorf("read Dockerfile: it needs FROM scratch, COPY and ENTRYPOINT")
	}
	return r, nil
}

type numbered struct {
	number int
	text   string
}

// logical are the lines without comments, continued ones put together.
func logical(text string) (out []numbered) {
	number, open := 0, false
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		more := strings.HasSuffix(line, `\`)
		line = strings.TrimSpace(strings.TrimSuffix(line, `\`))
		if open {
			out[len(out)-1].text += " " + line
		} else {
			out = append(out, numbered{number, line})
		}
		open = more
	}
	return out
}

// expand puts the values of $NAME and ${NAME} in; the first that nobody knows is told.
func expand(text string, known map[string]string, unknown *string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' {
			b.WriteByte(text[i])
			continue
		}
		rest := text[i+1:]
		name, skip := "", 0
		if inside, ok := strings.CutPrefix(rest, "{"); ok {
			if end := strings.IndexByte(inside, '}'); end >= 0 {
				name, skip = inside[:end], end+2
			}
		} else {
			end := strings.IndexFunc(rest, func(r rune) bool {
				return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
			})
			if end < 0 {
				end = len(rest)
			}
			name, skip = rest[:end], end
		}
		value, ok := known[name]
		if !ok && *unknown == "" {
			*unknown = name
		}
		b.WriteString(value)
		i += skip
	}
	return b.String()
}

func readCopy(text string) (Copy, error) {
	c := Copy{Mode: -1}
	words := strings.Fields(text)
	for len(words) > 0 && strings.HasPrefix(words[0], "--") {
		name, value, _ := strings.Cut(words[0], "=")
		switch name {
		case "--chmod":
			mode, err := strconv.ParseInt(value, 8, 32)
			if err != nil || mode < 0 || mode > 0o7777 {
				return c, fmt.Errorf("%q is no mode", value)
			}
			c.Mode = mode
		case "--chown":
			user, group, _ := strings.Cut(value, ":")
			uid, err := strconv.Atoi(user)
			gid, err2 := strconv.Atoi(group)
			if err != nil || err2 != nil {
				return c, fmt.Errorf("%q is no pair of numbers: names mean nothing in an image from scratch", value)
			}
			c.UID, c.GID = uid, gid
		default:
			return c, fmt.Errorf("%s is not understood", name)
		}
		words = words[1:]
	}
	if len(words) != 2 || !path.IsAbs(words[1]) || slices.Contains(strings.Split(words[0], "/"), "..") || path.IsAbs(words[0]) {
		return c, fmt.Errorf("name one thing of the context and where it goes, from /")
	}
	c.From, c.To = words[0], words[1]
	return c, nil
}
