"""Which of Django's tests run over encrypted columns, and what stays plain in them."""

from __future__ import annotations

from typing import Final

APPLICATIONS: Final = """
    aggregation annotations async basic bulk_create defer delete fixtures force_insert_update get_or_create lookup
    m2m_through many_to_one model_fields model_forms model_formsets model_inheritance null_queries or_lookups
    prefetch_related proxy_models queries raw_query save_delete_hooks select_related serializers timezones update
    update_only_fields validation
""".split()  # noqa: SIM905  as the command line has them

PLAIN: Final = frozenset(
    """
    delete.Referrer.unique_field many_to_one.Parent.name model_forms.Inventory.barcode
    model_formsets.ParentWithUUIDAlternateKey.uuid prefetch_related.Author.name queries.Author.num queries.Food.name
    queries.Job.name queries.Node.num queries.Responsibility.description serializers.UniqueAnchor.data
    update.Foo.target validation.UniqueFieldsModel.unique_charfield
    lookup.Freebie.stock_id
    update_only_fields.Profile.non_concrete
    """.split()  # noqa: SIM905
)
"""Other tables refer to the first ones; then: a relation compares it with a column, and one that
has no column."""

SORTED_BY_LESS: Final = {"basic.Article": 1}
"""Models that keep only so many names of their ordering: the other fields are encrypted."""

EXCLUDED: Final = ["test_crafted_xml_performance"]
"""It measures time, which says nothing on a machine that does something else."""
