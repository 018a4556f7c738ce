"""Pictures of reports that were written before: nothing is measured anew. `vscan bench --from REPORT --plot PICTURE`."""
