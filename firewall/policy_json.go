package firewall

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// PolicySchema is what a policy says in its field "schema" as JSON. It changes
// when the meaning of a policy does.
const PolicySchema = "hardshell.exposure/v1"

// policyFields is Policy without its methods.
type policyFields Policy

type policyDocument struct {
	Schema string `json:"schema"`
	policyFields
}

// MarshalJSON encodes p in canonical form, with its schema.
func (p Policy) MarshalJSON() ([]byte, error) {
	c := p.Canonical()
	// A list that is empty is one, and not null, to those who read it.
	if c.Allow == nil {
		c.Allow = []Allow{}
	}
	if c.Networks == nil {
		c.Networks = []Network{}
	}
	if c.Published == nil {
		c.Published = []Port{}
	}
	return json.Marshal(policyDocument{PolicySchema, policyFields(c)})
}

// UnmarshalJSON decodes what MarshalJSON encodes. It refuses another schema,
// fields that it does not know, and fields that are missing: a firewall that
// reads a misspelt "allow" as an empty one is safe, one that reads a misspelt
// "networks" so is not.
func (p *Policy) UnmarshalJSON(data []byte) error {
	var present map[string]json.RawMessage
	if err := json.Unmarshal(data, &present); err != nil {
		return fmt.Errorf("firewall: policy: %w", err)
	}
	var doc policyDocument
	if err := json.Unmarshal(present["schema"], &doc.Schema); err != nil || doc.Schema != PolicySchema {
		return fmt.Errorf("firewall: policy: schema is %q, want %q", doc.Schema, PolicySchema)
	}
	for _, name := range []string{"allow", "networks", "published"} {
		if raw, ok := present[name]; !ok || string(raw) == "null" {
			return fmt.Errorf("firewall: policy: no %q; write [] if there is none", name)
		}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return fmt.Errorf("firewall: policy: %w", err)
	}
	*p = Policy(doc.policyFields)
	return nil
}

// ParsePolicy reads one policy, as JSON, and nothing after it. The result is
// valid and in canonical form.
func ParsePolicy(data []byte) (Policy, error) {
	var p Policy
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&p); err != nil {
		if _, ok := errors.AsType[*json.SyntaxError](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("firewall: policy: %w", err)
		}
		return Policy{}, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Policy{}, errors.New("firewall: policy: something follows its end")
	}
	if err := p.Validate(); err != nil {
		return Policy{}, err
	}
	return p.Canonical(), nil
}
