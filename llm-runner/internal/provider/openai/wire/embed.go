package wire

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"home.arpa/lab/llm-runner/internal/llm"
)

type embedRequest struct {
	Model      string          `json:"model"`
	Input      json.RawMessage `json:"input"`
	Format     string          `json:"encoding_format,omitempty"`
	Dimensions int             `json:"dimensions,omitempty"`
}

// ParseEmbedRequest reads a client's embedding request; inBase64 is the form in which it wants the vectors. Errors begin
// with the name of the field at fault. Lists of token numbers are refused: they mean something to one tokenizer only.
func ParseEmbedRequest(b []byte) (req llm.EmbedRequest, inBase64 bool, err error) {
	var in embedRequest
	if err := json.Unmarshal(b, &in); err != nil {
		return req, false, explain(err)
	}
	req = llm.EmbedRequest{Model: in.Model, Dimensions: in.Dimensions}
	var one string
	switch {
	case in.Model == "":
		return req, false, errors.New("model: is missing")
	case in.Dimensions < 0:
		return req, false, errors.New("dimensions: must not be negative")
	case in.Format != "" && in.Format != "float" && in.Format != "base64":
		return req, false, fmt.Errorf("encoding_format: %q is not one of float, base64", in.Format)
	case !present(in.Input):
		return req, false, errors.New("input: is missing")
	case json.Unmarshal(in.Input, &one) == nil:
		req.Texts = []string{one}
	case json.Unmarshal(in.Input, &req.Texts) != nil || len(req.Texts) == 0:
		return req, false, errors.New("input: must be a string or a list of strings")
	}
	return req, in.Format == "base64", nil
}

// MarshalEmbedRequest writes req, asking for plain numbers.
func MarshalEmbedRequest(req llm.EmbedRequest) []byte {
	return llm.AppendJSON(nil, embedRequest{req.Model, llm.AppendJSON(nil, req.Texts), "float", req.Dimensions})
}

// vector is a list of numbers, or the base64 of little-endian 32-bit floats.
type vector []float32

func (v *vector) UnmarshalJSON(b []byte) error {
	if b[0] != '"' {
		return json.Unmarshal(b, (*[]float32)(v))
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(raw)%4 != 0 {
		return errors.New("embedding is not base64 of 32-bit floats")
	}
	*v = make(vector, len(raw)/4)
	for i := range *v {
		(*v)[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return nil
}

type embedding struct {
	Object    string `json:"object"`
	Index     int    `json:"index"`
	Embedding vector `json:"embedding"`
}

// ParseEmbeddings reads the vectors of n texts. An error is an *Error where the server says that it failed.
func ParseEmbeddings(b []byte, n int) (llm.Embeddings, error) {
	var in struct {
		Data  []embedding     `json:"data"`
		Usage *usage          `json:"usage"`
		Error json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return llm.Embeddings{}, fmt.Errorf("answer is not of the embeddings dialect: %w", err)
	}
	if present(in.Error) {
		return llm.Embeddings{}, ParseError(b)
	}
	if len(in.Data) != n {
		return llm.Embeddings{}, fmt.Errorf("%d vectors came for %d texts", len(in.Data), n)
	}
	out := llm.Embeddings{Vectors: make([][]float32, n)}
	for _, e := range in.Data {
		if e.Index < 0 || e.Index >= n || out.Vectors[e.Index] != nil || len(e.Embedding) == 0 {
			return llm.Embeddings{}, fmt.Errorf("vector %d is out of place or empty", e.Index)
		}
		out.Vectors[e.Index] = e.Embedding
	}
	if in.Usage != nil {
		out.Usage = llm.Usage{Input: count(in.Usage.Prompt)}
	}
	return out, nil
}

// AppendEmbeddings appends e as a list of embedding objects.
func AppendEmbeddings(dst []byte, e llm.Embeddings, model string, inBase64 bool) []byte {
	type packed struct {
		Object    string `json:"object"`
		Index     int    `json:"index"`
		Embedding any    `json:"embedding"`
	}
	data := make([]packed, len(e.Vectors))
	for i, v := range e.Vectors {
		data[i] = packed{"embedding", i, v}
		if inBase64 {
			raw := make([]byte, 0, 4*len(v))
			for _, x := range v {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
			}
			data[i].Embedding = base64.StdEncoding.EncodeToString(raw)
		}
	}
	u := told(llm.Usage{Input: e.Usage.Input})
	if u != nil {
		u.Total = u.Prompt
	}
	return llm.AppendJSON(dst, struct {
		Object string   `json:"object"`
		Data   []packed `json:"data"`
		Model  string   `json:"model"`
		Usage  *usage   `json:"usage,omitempty"`
	}{"list", data, model, u})
}
