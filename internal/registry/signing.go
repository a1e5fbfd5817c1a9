package registry

// Signing says how an endpoint's requests are signed; zero means Standard
// Webhooks. The fields are those of signature.Spec, which has their meaning.
type Signing struct {
	Scheme          string `json:"scheme,omitempty"`
	Header          string `json:"header,omitempty"`
	Algorithm       string `json:"algorithm,omitempty"`
	Encoding        string `json:"encoding,omitempty"`
	Prefix          string `json:"prefix,omitempty"`
	Start           string `json:"start,omitempty"`
	Separator       string `json:"separator,omitempty"`
	Template        string `json:"template,omitempty"`
	TimestampHeader string `json:"timestamp_header,omitempty"`
	IDHeader        string `json:"id_header,omitempty"`
	TypeHeader      string `json:"type_header,omitempty"`
}
