package plan

// plainJSON turns HuJSON, which Tailscale's policies are written in, into JSON of the same length: comments and the commas before closing
// brackets become spaces (github.com/tailscale/hujson describes the format). What is wrong otherwise stays wrong.
func plainJSON(text []byte) []byte {
	out := append([]byte(nil), text...)
	comma := -1 // the last comma that nothing but spaces and comments has followed
	for i := 0; i < len(out); i++ {
		switch c := out[i]; {
		case c == '"':
			comma = -1
			for i++; i < len(out) && out[i] != '"'; i++ {
				if out[i] == '\\' {
					i++
				}
			}
		case c == '/' && i+1 < len(out) && out[i+1] == '/':
			for ; i < len(out) && out[i] != '\n'; i++ {
				out[i] = ' '
			}
		case c == '/' && i+1 < len(out) && out[i+1] == '*':
			end := i + 2
			for end+1 < len(out) && (out[end] != '*' || out[end+1] != '/') {
				end++
			}
			if end+1 >= len(out) {
				return out // a comment without an end: no JSON
			}
			for ; i <= end+1; i++ {
				if out[i] != '\n' {
					out[i] = ' '
				}
			}
			i--
		case c == ',':
			comma = i
		case c == '}' || c == ']':
			if comma >= 0 {
				out[comma] = ' '
			}
			comma = -1
		case c != ' ' && c != '\n' && c != '\t' && c != '\r':
			comma = -1
		}
	}
	return out
}
