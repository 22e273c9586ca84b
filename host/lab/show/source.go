package show

// Source is a claim's source by its name.
func Source(lang, source string) string { return source }
