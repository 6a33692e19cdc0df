package tinymodel

// A vocabulary numbers tokens in the order in which they are added.
type vocabulary struct {
	tokens []string
	types  []int32
	ids    map[string]int
}

// The kinds of tokens that GGUF knows and these models use.
const (
	normal  = 1
	control = 3
)

// add returns the number of a token, new or old.
func (v *vocabulary) add(token string, kind int32) int {
	if id, known := v.ids[token]; known {
		return id
	}
	if v.ids == nil {
		v.ids = map[string]int{}
	}
	id := len(v.tokens)
	v.ids[token] = id
	v.tokens = append(v.tokens, token)
	v.types = append(v.types, kind)
	return id
}

// save stores the vocabulary as the model's tokenizer of the given kind.
func (v *vocabulary) save(m *model, kind string) {
	m.set("tokenizer.ggml.model", kind)
	m.set("tokenizer.ggml.pre", "default")
	m.set("tokenizer.ggml.tokens", v.tokens)
	m.set("tokenizer.ggml.token_type", v.types)
}

// byteTokens are the 256 bytes as GPT-2 writes them in its vocabulary: printable ones as themselves, the others as the
// letters from U+0100 on (bytes_to_unicode in https://github.com/openai/gpt-2/blob/master/src/encoder.py).
var byteTokens = func() (tokens [256]string) {
	next := rune(0x100)
	for i := range tokens {
		if r := rune(i); r > ' ' && r <= '~' || r >= 0xa1 && r != 0xad {
			tokens[i] = string(r)
			continue
		}
		tokens[i] = string(next)
		next++
	}
	return tokens
}()

// spelled writes text the way GPT-2's vocabulary does.
func spelled(text string) (s string) {
	for _, b := range []byte(text) {
		s += byteTokens[b]
	}
	return s
}
