"""Reports on call outcomes over a period: figures from the views, shown as HTML, Markdown, CSV or JSON."""
