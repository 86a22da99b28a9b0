"""Storage as code: what folders of documents want, compared with what there is, and carried out by the engine's own verbs."""
