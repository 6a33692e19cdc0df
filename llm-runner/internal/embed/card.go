package embed

import "strings"

// A Card is what has to be known of an embedding model and cannot be asked of any server.
type Card struct {
	Family   string // as in the model's own documentation
	Document string // goes before a text that is stored; part of the index's stamp
	Query    string // goes before a question
	// Dimensions of its vectors; 0: those of the first vector that comes.
	Dimensions int
	// Context is how many tokens of a text the model reads; 0 not known.
	Context int
	// Silent says that what exceeds Context is dropped without a word by the servers of this model.
	Silent bool
	// Task says that the model is told by a parameter what a text is for (llm.EmbedRequest.Task).
	Task bool
	// Pooling is how a server must make one vector of the tokens' vectors; for servers that have to be told (llama.cpp,
	// text-embeddings-inference). Ollama and the cloud do what is right.
	Pooling string
}

// Prefixes that several models want, as their model cards on huggingface.co/<maker>/<model> have them.
const (
	represent = "Represent this sentence for searching relevant passages: "
	qwenTask  = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)

// cards, by what a model's bare name begins with; the longest counts. Sources: the models' cards on Hugging Face (nomic-ai,
// mixedbread-ai, BAAI, sentence-transformers, Snowflake, intfloat, google/embeddinggemma-300m, Qwen), the GGUF files that
// Ollama serves (contexts), platform.openai.com/docs/guides/embeddings, ai.google.dev/gemini-api/docs/embeddings.
var cards = map[string]Card{
	"nomic-embed-text":            {Family: "nomic-embed-text", Document: "search_document: ", Query: "search_query: ", Dimensions: 768, Context: 2048, Pooling: "mean"},
	"nomic-embed-text-v2":         {Family: "nomic-embed-text-v2", Document: "search_document: ", Query: "search_query: ", Dimensions: 768, Context: 512, Pooling: "mean"},
	"mxbai-embed-large":           {Family: "mxbai-embed-large", Query: represent, Dimensions: 1024, Context: 512, Pooling: "cls"},
	"bge-m3":                      {Family: "bge-m3", Dimensions: 1024, Context: 8192, Pooling: "cls"},
	"bge-small-en":                {Family: "bge-small-en", Query: represent, Dimensions: 384, Context: 512, Pooling: "cls"},
	"bge-base-en":                 {Family: "bge-base-en", Query: represent, Dimensions: 768, Context: 512, Pooling: "cls"},
	"bge-large":                   {Family: "bge-large", Query: represent, Dimensions: 1024, Context: 512, Pooling: "cls"},
	"all-minilm":                  {Family: "all-minilm", Dimensions: 384, Context: 256, Pooling: "mean"},
	"snowflake-arctic-embed":      {Family: "snowflake-arctic-embed", Query: represent, Context: 512, Pooling: "cls"},
	"snowflake-arctic-embed2":     {Family: "snowflake-arctic-embed2", Query: "query: ", Dimensions: 1024, Context: 8192, Pooling: "cls"},
	"snowflake-arctic-embed-l-v2": {Family: "snowflake-arctic-embed2", Query: "query: ", Dimensions: 1024, Context: 8192, Pooling: "cls"},
	"multilingual-e5":             {Family: "multilingual-e5", Document: "passage: ", Query: "query: ", Context: 512, Pooling: "mean"},
	"e5-":                         {Family: "e5", Document: "passage: ", Query: "query: ", Context: 512, Pooling: "mean"},
	"embeddinggemma":              {Family: "embeddinggemma", Document: "title: none | text: ", Query: "task: search result | query: ", Dimensions: 768, Context: 2048, Pooling: "mean"},
	"qwen3-embedding":             {Family: "qwen3-embedding", Query: qwenTask, Context: 32768, Pooling: "last"},
	"gemini-embedding-001":        {Family: "gemini-embedding-001", Dimensions: 3072, Context: 2048, Silent: true, Task: true},
	"gemini-embedding-2":          {Family: "gemini-embedding-2", Document: "title: none | text: ", Query: "task: search result | query: ", Dimensions: 3072, Context: 8192, Silent: true},
	"text-embedding-3-small":      {Family: "text-embedding-3-small", Dimensions: 1536, Context: 8192},
	"text-embedding-3-large":      {Family: "text-embedding-3-large", Dimensions: 3072, Context: 8192},
	"text-embedding-ada-002":      {Family: "text-embedding-ada-002", Dimensions: 1536, Context: 8192},
}

// CardOf returns the card of a model, by the name under which a server has it: "nomic-embed-text:v1.5",
// "models/gemini-embedding-001", "nomic-ai/nomic-embed-text-v1.5", "all-MiniLM-L6-v2". A model that is not known has neither
// prefix nor dimension; the dimension is learned.
func CardOf(model string) Card {
	name := strings.ToLower(model)
	name = name[strings.LastIndex(name, "/")+1:]
	best := ""
	for prefix := range cards {
		if strings.HasPrefix(name, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	if best == "" {
		return Card{Family: name}
	}
	return cards[best]
}
